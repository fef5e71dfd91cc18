//! The `outlast` binary.

fn main() -> std::process::ExitCode {
    outlast::cli::main()
}
