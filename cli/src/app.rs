//! The commands as clap knows them, and what runs each.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use weave_api::Target;
use weave_host::attach::PROBE_WAIT;
use weave_router::config::LogLevel;
use weave_wire::{HostName, PeerName};

use crate::argv;
use crate::commands::{self, check, demo, dns, ping, status};
use crate::environment::Environment;
use crate::failure::{Failure, Result};
use crate::ignored::IgnoredOptions;
use crate::launch::{LaunchOptions, log_level};
use crate::misread;
use crate::output;

/// A network for containers on many hosts: to them it looks like one Ethernet switch.
#[derive(Debug, Parser)]
#[command(name = "weave", version, disable_help_flag = true, disable_version_flag = true)]
#[command(after_help = "Long options work with one dash or two. \
    Exit codes: 0 done, 1 failed, 2 wrong usage.")]
pub struct App {
    /// Print help
    #[arg(long, global = true, action = ArgAction::Help)]
    help: Option<bool>,
    /// Print the version
    #[arg(long, action = ArgAction::Version)]
    version: Option<bool>,
    #[command(flatten)]
    ignored: IgnoredOptions,
    #[command(subcommand)]
    command: Command,
}

/// One variant and one file in `commands` each.
#[derive(Debug, Subcommand)]
enum Command {
    /// Start the router in the background; returns when it is ready
    Launch(Box<LaunchOptions>),
    /// Run the router in the foreground, for systemd and containers
    Router {
        #[command(flatten)]
        options: Box<LaunchOptions>,
        /// Started by `launch`: passwords on standard input, readiness on standard output
        #[arg(long, hide = true)]
        launched: bool,
    },
    /// Stop the router and the DNS; traffic between local containers goes on
    Stop {
        /// Let the DNS answer on
        #[arg(long)]
        keep_dns: bool,
        /// For a service manager: only if the router is this process; empty: that one has ended already
        #[arg(long, value_name = "PID", hide = true)]
        pid: Option<String>,
    },
    /// Stop and remove every trace: bridge, tap, interfaces of containers, state
    Reset {
        /// What later versions of the original ask for where no router runs
        #[arg(long, hide = true)]
        force: bool,
    },
    /// Start a container with addresses on the network: `docker run -d`, then `attach`
    #[command(after_help = commands::run::HELP)]
    Run {
        /// Have the container ask the DNS of the network
        #[arg(long)]
        with_dns: bool,
        /// What later versions of the original take for what is so without it here
        #[arg(long, hide = true, conflicts_with = "with_dns")]
        without_dns: bool,
        #[command(flatten)]
        force: Force,
        /// Addresses with the length of their network, then what `docker run` takes
        #[arg(
            value_name = "CIDR… DOCKER-RUN-ARGUMENTS…",
            trailing_var_arg = true,
            allow_hyphen_values = true
        )]
        arguments: Vec<OsString>,
    },
    /// Start a stopped container with these addresses, or with those it had
    #[command(after_help = commands::attach::HELP)]
    Start {
        #[command(flatten)]
        force: Force,
        /// Addresses with the length of their network, and one container
        #[arg(value_name = "CIDR… CONTAINER", required = true)]
        arguments: Vec<OsString>,
    },
    /// Give a running container addresses on the network
    #[command(after_help = commands::attach::HELP)]
    Attach {
        #[command(flatten)]
        addressed: AddressArguments,
        /// As `run` takes it
        #[arg(long, hide = true)]
        without_dns: bool,
        #[command(flatten)]
        force: Force,
    },
    /// Take addresses from a container; the last one takes its interface too
    #[command(after_help = commands::attach::HELP)]
    Detach(AddressArguments),
    /// Put this host on the network
    Expose {
        /// Addresses with the length of their network
        #[arg(value_name = "CIDR", required = true)]
        cidrs: Vec<OsString>,
        /// Name for these addresses
        #[arg(short = 'h', value_name = "FQDN", value_parser = HostName::typed)]
        names: Vec<HostName>,
        /// Let packets from elsewhere keep their source
        #[arg(long)]
        without_masquerade: bool,
        #[command(flatten)]
        force: Force,
    },
    /// Take this host off the network again
    Hide {
        /// Addresses with the length of their network
        #[arg(value_name = "CIDR", required = true)]
        cidrs: Vec<OsString>,
    },
    /// Start the DNS of the network, or give the one that runs these settings
    LaunchDns(dns::launch::Arguments),
    /// Stop the DNS
    StopDns {
        /// For a service manager: only if it is this process; empty: that one has ended already
        #[arg(long, value_name = "PID", hide = true)]
        pid: Option<String>,
    },
    /// Give a container, or an address outside the network, a name
    #[command(after_help = dns::names::HELP)]
    DnsAdd(dns::names::Arguments),
    /// Take names from a container, or from an address outside the network
    #[command(after_help = dns::names::HELP)]
    DnsRemove(dns::names::Arguments),
    /// Print the addresses that a name stands for
    DnsLookup {
        /// In the domain; one word is taken for a name of it
        #[arg(value_parser = HostName::typed)]
        name: HostName,
    },
    /// Add peers to connect to
    Connect {
        /// Connect to exactly these peers instead; to none if none is named
        #[arg(long)]
        replace: bool,
        /// Names or addresses
        #[arg(value_name = "PEER[:PORT]", required_unless_present = "replace")]
        peers: Vec<Target>,
    },
    /// Stop reconnecting to peers; live links stay until connectivity is lost
    Forget {
        /// Names or addresses, as they were given
        #[arg(value_name = "PEER[:PORT]", required_unless_present = "identity")]
        peers: Vec<Target>,
        /// Free the name of a peer whose host lost its key, so that another may take it
        #[arg(long, value_name = "NAME")]
        identity: Vec<PeerName>,
    },
    /// Read the password file again: two lines, current and previous, while hosts change over
    Reload,
    /// Change how much the router logs: error, warn, info, debug, trace
    LogLevel {
        /// With everything above it
        #[arg(value_parser = log_level)]
        level: LogLevel,
    },
    /// Show the state of the router
    Status(status::Arguments),
    /// Round trips to a peer through the mesh: the way there, its weakest link, loss
    Ping(ping::Arguments),
    /// Find out why it does not work: kernel, limits, router, peers, engine, DNS
    Check(check::Arguments),
    /// Everything for a bug report as one JSON document, secrets left out
    Report,
    /// List attached containers: id, MAC, addresses
    Ps {
        /// Only these, as they were given to `attach`
        #[arg(value_name = "CONTAINER")]
        containers: Vec<String>,
    },
    /// Hosts on this machine, in namespaces of their own: see it work
    Demo {
        /// Number of hosts; from 3 on a relay and a change of routes are shown
        #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(2..=demo::HOSTS_MAX))]
        hosts: u8,
    },
    /// Keep bridge, addresses, firewall rules and attachments as they were set up; the commands that need it start it
    Keeper {
        /// Started by a router that starts: keep nothing before it runs
        #[arg(long, hide = true)]
        for_router: bool,
        /// After an upgrade: start keeper and DNS anew, with this executable
        #[arg(long, conflicts_with = "for_router")]
        renew: bool,
    },
    /// Print the completions for a shell
    Completions {
        /// bash, elvish, fish, powershell or zsh
        shell: clap_complete::Shell,
    },
    /// Print the version
    Version,

    /// Write the manual pages, one for each command; for packages
    #[command(hide = true)]
    Man {
        /// Where to
        directory: PathBuf,
    },
    #[command(hide = true)]
    Dns,
    #[command(hide = true)]
    DnsArgs {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    #[command(hide = true)]
    Setup,
    #[command(hide = true)]
    CreateBridge,
    #[command(hide = true)]
    LaunchRouter(Box<LaunchOptions>),
    #[command(hide = true)]
    StopRouter,
    #[command(hide = true, aliases = ["stop-plugin"])]
    StopProxy,
    #[command(hide = true)]
    LaunchPlugin(Anything),
    #[command(hide = true)]
    Restart(Anything),
    #[command(hide = true)]
    Prime(Anything),
    #[command(hide = true)]
    Rmpeer(Anything),
    #[command(hide = true)]
    Env(Anything),
    #[command(hide = true)]
    LaunchProxy(Anything),
}

/// Addresses and a container, in any order.
#[derive(Debug, Args)]
pub struct AddressArguments {
    /// Addresses with the length of their network, and one container
    #[arg(value_name = "CIDR… CONTAINER", required = true)]
    pub arguments: Vec<String>,
}

/// Whether somebody else may have an address.
#[derive(Debug, Clone, Copy, Args)]
pub struct Force {
    /// Take addresses although somebody else has them
    #[arg(long)]
    pub force: bool,
}

impl Force {
    /// How long it is asked who has an address, if at all.
    pub fn probe(self) -> Option<Duration> {
        (!self.force).then_some(PROBE_WAIT)
    }
}

/// Whatever stands behind a command that is no more.
#[derive(Debug, Args)]
struct Anything {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    _arguments: Vec<OsString>,
}

/// Runs the command line `arguments`, the name of the program first.
pub fn run(arguments: &[OsString]) -> Result<()> {
    let environment = Environment::of_process();
    let mut description = description();
    let tokens = argv::read(&description, arguments);
    let app = match description
        .try_get_matches_from_mut(tokens.iter().map(|token| &token.text))
        .and_then(|matches| App::from_arg_matches(&matches))
    {
        Ok(app) => app,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            return output::print(error.render());
        }
        Err(error) if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            return Err(Failure::usage(
                "cannot read the command line",
                "no command is given",
                "see `weave --help`",
            ));
        }
        Err(error) => return Err(misread::failure(&error, &tokens)),
    };
    app.ignored.tell(&environment);
    match app.command {
        Command::Launch(options) => commands::launch::run(*options, &environment, &tokens, true),
        Command::LaunchRouter(options) => commands::launch::run(*options, &environment, &tokens, false),
        Command::LaunchDns(arguments) => dns::launch::run(&arguments, &environment),
        Command::StopDns { pid } => dns::launch::stop(pid.as_deref(), &environment),
        Command::DnsAdd(arguments) => dns::names::add(&arguments, &environment),
        Command::DnsRemove(arguments) => dns::names::remove(&arguments, &environment),
        Command::DnsLookup { name } => dns::names::lookup(&name, &environment),
        Command::DnsArgs { arguments } => dns::arguments::run(&arguments, &environment),
        Command::Dns => dns::sidecar::run(&environment),
        Command::Router { options, launched } => commands::router::run(*options, &environment, launched),
        Command::Stop { keep_dns, pid } => commands::stop::run(keep_dns, pid.as_deref(), &environment),
        Command::StopRouter => commands::stop::run(false, None, &environment),
        Command::Run { arguments, with_dns, without_dns: _, force } => {
            commands::run::run(&arguments, with_dns, force, &environment)
        }
        Command::Start { arguments, force } => commands::start::run(&arguments, force, &environment),
        Command::Attach { addressed, without_dns: _, force } => {
            commands::attach::run(&addressed, force, &environment)
        }
        Command::Detach(arguments) => commands::detach::run(&arguments, &environment),
        Command::Expose { cidrs, names, without_masquerade, force } => {
            commands::expose::expose(&cidrs, names, !without_masquerade, force, &environment)
        }
        Command::Hide { cidrs } => commands::expose::hide(&cidrs, &environment),
        Command::Connect { replace, peers } => commands::connect::run(peers, replace, &environment),
        Command::Forget { peers, identity } => commands::forget::run(peers, identity, &environment),
        Command::Reload => commands::reload::run(&environment),
        Command::LogLevel { level } => commands::log_level::run(level, &environment),
        Command::Status(arguments) => status::run(&arguments, &environment),
        Command::Check(arguments) => check::run(&arguments, &environment),
        Command::Ping(arguments) => ping::run(&arguments, &environment),
        Command::Ps { containers } => commands::ps::run(&containers, &environment),
        Command::Reset { force: _ } => commands::reset::run(&environment),
        Command::Report => commands::report::run(&environment),
        Command::Demo { hosts } => commands::demo::run(usize::from(hosts)),
        Command::Completions { shell } => commands::completions::run(shell, &mut self::description()),
        Command::Man { directory } => commands::man::run(&directory, App::command()),
        Command::Version => commands::version::run(),
        Command::Keeper { renew: true, .. } => commands::keeper::renew(&environment),
        Command::Keeper { for_router, .. } => commands::keeper::run(&environment, for_router),
        Command::Setup | Command::StopProxy => Ok(()),
        Command::CreateBridge => commands::create_bridge::run(&environment),
        Command::Prime(_) => Err(commands::former::prime()),
        Command::Rmpeer(_) => Err(commands::former::rmpeer()),
        Command::Env(_) => Err(commands::former::env()),
        Command::LaunchPlugin(_) => Err(commands::former::launch_plugin()),
        Command::Restart(_) => Err(commands::former::restart()),
        Command::LaunchProxy(_) => Err(commands::former::launch_proxy()),
    }
}

/// All commands and options, with the global ones in their places.
fn description() -> clap::Command {
    let mut description = App::command();
    description.build();
    description
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_description_of_the_commands_is_consistent() {
        App::command().debug_assert();
    }

    /// Every command with its options, as `--help` prints it.
    fn reference() -> String {
        let mut text = String::from(
            "# Commands\n\nWhat `weave help COMMAND` prints. This file is made from the program: \
             `WEAVE_WRITE_DOCS=1 cargo test -p weave commands_are_documented` writes it anew.\n",
        );
        for command in description().get_subcommands_mut().filter(|command| !command.is_hide_set()) {
            let name = command.get_name().to_owned();
            let help = command.render_long_help().to_string();
            let lines: Vec<_> = help.trim_end().lines().map(str::trim_end).collect();
            text.push_str(&format!("\n## weave {name}\n\n```\n{}\n```\n", lines.join("\n")));
        }
        text
    }

    #[test]
    fn commands_are_documented() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/commands.md");
        let now = reference();
        if std::env::var_os("WEAVE_WRITE_DOCS").is_some() {
            std::fs::write(path, &now).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(written == now, "docs/commands.md is stale: see its head");
    }

    #[test]
    fn few_options_have_a_short_form() {
        fn visit(command: &clap::Command) {
            for argument in command.get_arguments() {
                let short = argument.get_short();
                assert!(
                    matches!(short, None | Some('o' | 'h'))
                        || command.get_name() == "ping" && matches!(short, Some('s' | 'c' | 'i')),
                    "{} {}",
                    command.get_name(),
                    argument.get_id()
                );
            }
            command.get_subcommands().for_each(visit);
        }
        visit(&description());
    }
}
