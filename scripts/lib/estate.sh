# Sourced by the scripts beside: a company's private repositories and the servers they are on.
# `estate` is the directory they are in, `installed_below` where the applications are installed,
# `git_server` the program of tests/support/bin.

git_() {
    GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 \
        GIT_AUTHOR_NAME=Ada GIT_AUTHOR_EMAIL=ada@example.com \
        GIT_COMMITTER_NAME=Ada GIT_COMMITTER_EMAIL=ada@example.com git "$@"
}

# release APP VERSION [SHELL] [SUBJECT]: commits and pushes a version whose start script runs
# SHELL, and prints its commit.
release() {
    local app=$1 version=$2 start=${3:-true} work=$estate/work/$1
    local subject=${4:-$app $version}
    if [ ! -d "$work" ]; then
        git_ init -q --bare --initial-branch=main "$estate/git/acme/$app.git"
        git_ -C "$estate/git/acme/$app.git" config uploadpack.allowAnySHA1InWant true
        git_ clone -q "$estate/git/acme/$app.git" "$work" 2>/dev/null
    fi
    mkdir -p "$work/content" "$work/scripts"
    echo "$app $version" >"$work/content/version"
    cat >"$work/appspec.yml" <<END
version: 0.0
os: linux
files:
  - source: content
    destination: $installed_below/$app
hooks:
  ApplicationStop:
    - location: scripts/stop.sh
      timeout: 60
  ApplicationStart:
    - location: scripts/start.sh
      timeout: 60
END
    printf '#!/bin/sh\necho "stopping %s %s"\n' "$app" "$version" >"$work/scripts/stop.sh"
    cat >"$work/scripts/start.sh" <<END
#!/bin/sh
echo "starting $app $version, commit \$GIT_COMMIT"
$start
END
    chmod +x "$work/scripts/"*.sh
    git_ -C "$work" add -A
    git_ -C "$work" commit -qm "$subject"
    git_ -C "$work" push -q origin HEAD:main
    git_ -C "$work" rev-parse HEAD
}

# Serves the repositories over HTTPS with a token and over SSH with a key, until stop_servers or
# the script's end. Sets `https` and `ssh` to where they are.
start_servers() {
    mkdir -p "$estate/servers" "$estate/secrets"
    (umask 077; printf 'demo-%s\n' "$(head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n')" >"$estate/secrets/token")
    mkfifo "$estate/servers/alive"
    "$git_server" "$estate/git" "$estate/secrets/token" "$estate/servers" \
        <"$estate/servers/alive" >"$estate/servers/output" 2>&1 &
    servers=$!
    # They end when this file descriptor is closed: with the script, however it ends.
    exec 9>"$estate/servers/alive"
    trap stop_servers EXIT
    local _
    for _ in $(seq 300); do
        [ -e "$estate/servers/ready" ] && break
        kill -0 "$servers" 2>/dev/null || { cat "$estate/servers/output" >&2; exit 1; }
        sleep 0.1
    done
    https=$(cat "$estate/servers/https")
    ssh=$(cat "$estate/servers/ssh")
}

stop_servers() {
    exec 9>&-
    wait "$servers" 2>/dev/null || true
}
