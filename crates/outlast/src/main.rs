//! The `outlast` binary.

/// Lower cost per request than the system's allocator, and steadier memory under load.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    outlast::cli::main()
}
