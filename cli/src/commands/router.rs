//! `weave router`: the router itself, in this process.

use crate::environment::Environment;
use crate::failure::{Failure, Result};
use crate::launch::{LaunchOptions, Readiness, Resolved, Role, read_secrets, resolve};
use crate::output;
use crate::root;
use crate::running::{Claim, Daemon};

/// Runs the router until it is asked to end.
pub fn run(options: LaunchOptions, environment: &Environment, launched: bool) -> Result<()> {
    if !launched {
        return foreground(options, environment);
    }
    // A signal to the terminal that launched is not for the router.
    let _ = rustix::process::setsid();
    let readiness = Readiness::Launched;
    let outcome = read_secrets()
        .and_then(|passwords| resolve(options, environment, Role::Launched(passwords)))
        .and_then(|resolved| serve(resolved, readiness, false));
    if let Err(failure) = &outcome {
        readiness.failed(failure.to_string());
    }
    outcome
}

fn foreground(options: LaunchOptions, environment: &Environment) -> Result<()> {
    if options.password.is_some() {
        return Err(Failure::usage(
            "cannot take the password from the arguments",
            "every user can read those of a running process",
            "use --password-file or WEAVE_PASSWORD",
        ));
    }
    let with_dns = !options.no_dns;
    let resolved = resolve(options, environment, Role::Front)?;
    root::require("router")?;
    resolved.warnings.iter().for_each(output::warn);
    serve(resolved, Readiness::Foreground, with_dns)
}

fn serve(Resolved { config, .. }: Resolved, readiness: Readiness, with_dns: bool) -> Result<()> {
    weave_api::socket::prepare(&config.run_dir).map_err(|error| {
        Failure::new(
            "cannot make the control socket's place",
            error,
            "correct it or name another WEAVE_RUN_DIR",
        )
    })?;
    let _claim = Claim::take(&config.run_dir, Daemon::Router)?;
    let (port, mtu) = (config.port, config.mtu);
    let _ = std::env::set_current_dir("/");
    weave_router::run(config, move |outcome| match outcome {
        Ok(info) => {
            readiness.ready(info);
            // `launch` does it itself; here the router must not wait for it.
            if matches!(readiness, Readiness::Foreground) {
                std::thread::spawn(move || {
                    super::keeper::take_up(&Environment::of_process(), port, mtu, with_dns);
                });
            }
        }
        Err(reason) => readiness.failed(reason),
    })
    .map_err(Failure::verbatim)
}
