//! The program; see the README beside it.

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    match example_sync_device::run(std::env::args_os(), &mut std::io::stdout()) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "sync-device: {error}");
            ExitCode::FAILURE
        }
    }
}
