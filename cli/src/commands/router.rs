//! `weave router`: the router itself, in this process.

use std::cell::Cell;
use std::rc::Rc;

use weave_host::policy::HostPolicy;
use weave_router::config::ReadyInfo;

use super::keeper::Start;
use super::{dns, expose, keeper};
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
        .and_then(|resolved| serve(resolved, readiness, environment, false));
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
    root::require_router()?;
    keeper::check_guard(resolved.guard)?;
    resolved.warnings.iter().for_each(output::warn);
    root::kept_apart().iter().for_each(output::warn);
    if !with_dns {
        dns::launch::not_beside_router(environment);
    }
    serve(resolved, Readiness::Foreground, environment, with_dns)
}

/// `with_dns`: the keeper is to have the DNS run.
fn serve(resolved: Resolved, readiness: Readiness, environment: &Environment, with_dns: bool) -> Result<()> {
    let Resolved { config, guard, .. } = resolved;
    weave_api::socket::prepare(&config.run_dir).map_err(|error| {
        Failure::new(
            "cannot make the control socket's place",
            error,
            "correct it or name another WEAVE_RUN_DIR",
        )
    })?;
    // Its group is not the router's to give once that has no privileges.
    weave_api::names::prepare(&config.run_dir).map_err(|error| {
        Failure::new("cannot make the place of the names' socket", error, "check WEAVE_RUN_DIR")
    })?;
    let _claim = Claim::take(&config.run_dir, Daemon::Router)?;
    let policy = expose::policy(environment, config.port, guard)?;
    let state_dir = config.state_dir.clone();
    let start: Rc<Cell<Option<Start>>> = Rc::default();
    let started = Rc::clone(&start);
    let queues = |wanted| {
        let (queues, start) = keeper::queues(environment, wanted).map_err(|failure| failure.to_string())?;
        started.set(Some(start));
        // Every path in the configuration is absolute.
        let _ = std::env::set_current_dir("/");
        Ok(queues)
    };
    weave_router::run(config, queues, move |outcome| match (outcome, start.take()) {
        (Ok(info), start) => {
            // The router does not wait until the host is set up around it; who launched it does.
            std::thread::spawn(move || {
                announce(info, start, policy, readiness);
                if with_dns {
                    dns::launch::have_kept(&state_dir);
                }
            });
        }
        (Err(reason), start) => {
            if let Some(start) = start {
                start.failed();
            }
            readiness.failed(reason);
        }
    })
    .map_err(Failure::verbatim)
}

fn announce(mut info: ReadyInfo, start: Option<Start>, policy: HostPolicy, readiness: Readiness) {
    if let Some(Err(why)) = start.map(|start| start.runs(policy)) {
        if matches!(readiness, Readiness::Foreground) {
            output::warn(&why);
        }
        info.warnings.push(why);
    }
    readiness.ready(info);
}
