//! `weave launch`: the router, in the background.

use std::ffi::OsString;

use super::keeper;
use crate::argv::{Part, Token};
use crate::environment::Environment;
use crate::failure::{Failure, Result};
use crate::launch::{LaunchOptions, Resolved, Role, resolve, spawn};
use crate::output;
use crate::root;
use crate::running::{Daemon, Running, already};

/// Checks everything, starts the router and waits until it is ready.
pub fn run(
    options: LaunchOptions,
    environment: &Environment,
    tokens: &[Token],
    with_dns: bool,
) -> Result<()> {
    let with_dns = with_dns && !options.no_dns;
    let Resolved { config, guard, warnings } = resolve(options, environment, Role::Front)?;
    root::require_network("launch")?;
    // A router that was just killed holds its lock until the kernel has taken
    // it apart; one that lives is still there after the wait.
    if let Some(running) = Running::find(&config.run_dir, Daemon::Router)?
        && !running.wait(running.dying_limit())?
    {
        return Err(already(running.pid()));
    }
    keeper::check_guard(guard)?;
    warnings.iter().for_each(output::warn);
    if !with_dns {
        super::dns::launch::not_beside_router(environment);
    }
    let info = spawn(&config, router_arguments(tokens))?;
    info.warnings.iter().for_each(output::warn);
    if with_dns {
        super::dns::launch::beside_router(environment).map_err(|failure| {
            let remedy = "the keeper tries again; `weave launch-dns` does at once";
            Failure::new("the router runs without its DNS", failure, remedy)
        })?;
    }
    Ok(())
}

/// The arguments of `launch` without the password: those of the router. The path
/// of a password file stays: it is read again on `reload`.
fn router_arguments(tokens: &[Token]) -> impl Iterator<Item = OsString> {
    tokens
        .iter()
        .filter(|token| match &token.part {
            Part::Program | Part::Command => false,
            Part::Option(id) | Part::Value(id) => id != "password",
            Part::Other => true,
        })
        .map(|token| token.text.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str, part: Part) -> Token {
        Token { text: text.into(), part }
    }

    #[test]
    fn passwords_are_no_arguments_of_the_router() {
        let tokens = [
            token("weave", Part::Program),
            token("launch", Part::Command),
            token("--password", Part::Option("password".into())),
            token("wEaVe", Part::Value("password".into())),
            token("--password-file=f", Part::Option("password_file".into())),
            token("--port", Part::Option("port".into())),
            token("7000", Part::Value("port".into())),
            token("--", Part::Other),
            token("host2", Part::Other),
        ];
        assert_eq!(
            router_arguments(&tokens).collect::<Vec<_>>(),
            ["--password-file=f", "--port", "7000", "--", "host2"]
        );
    }
}
