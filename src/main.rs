//! The `multideployer` program: everything is in the library.

fn main() -> std::process::ExitCode {
    multideployer::run(&std::env::args_os().collect::<Vec<_>>())
}
