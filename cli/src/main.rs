//! `weave`: the command line, and with `weave router` the daemon itself.

mod app;
mod argv;
mod cidr;
mod commands;
mod environment;
mod failure;
mod ignored;
mod launch;
mod misread;
mod output;
mod root;
mod running;
mod text;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    match app::run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::complain(&failure);
            failure.exit_code()
        }
    }
}
