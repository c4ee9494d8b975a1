# Sourced by the scripts beside: installs what is missing, where that is possible.

# Administrators' programs are not on everybody's PATH.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

missing_commands=()
missing_packages=()

# need COMMAND PACKAGE: PACKAGE is Debian's name of what brings COMMAND.
need() {
    if ! command -v "$1" >/dev/null; then
        missing_commands+=("$1")
        missing_packages+=("$2")
    fi
}

install_missing() {
    [ ${#missing_commands[@]} -gt 0 ] || return 0
    local become=()
    if [ "$(id -u)" != 0 ]; then
        if ! sudo -n true 2>/dev/null; then
            missing "and there is no root to install it"
        fi
        become=(sudo -n)
    fi
    command -v apt-get >/dev/null || missing "and there is no apt-get to install it"
    echo "installing ${missing_packages[*]}"
    "${become[@]}" apt-get update -qq
    "${become[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing_packages[@]}"
    hash -r
    local command
    for command in "${missing_commands[@]}"; do
        command -v "$command" >/dev/null || missing "even after its installation"
    done
}

missing() {
    echo "missing ${missing_commands[*]} (Debian: ${missing_packages[*]}), $1" >&2
    exit 1
}

# need_rust COMPONENT...
need_rust() {
    if ! command -v cargo >/dev/null; then
        echo "missing cargo: install the Rust toolchain, see https://rustup.rs" >&2
        exit 1
    fi
    local component
    for component; do
        case $component in rustfmt) set -- fmt ;; *) set -- "$component" ;; esac
        if ! cargo "$1" --version >/dev/null 2>&1; then
            if ! command -v rustup >/dev/null || ! rustup component add "$component"; then
                echo "missing the Rust component $component" >&2
                exit 1
            fi
        fi
    done
}
