//! From options and environment to a configuration.

use std::net::IpAddr;

use weave_api::target::{Target, TargetHost};
use weave_router::Config;
use weave_router::config::{
    CoreList, LogLevel, MAX_ADVERTISED, MAX_TARGETS, MAX_TRUSTED_SUBNETS, Password, TestKnobs,
};
use weave_wire::Nickname;

use super::options::LaunchOptions;
use super::passwords;
use crate::environment::Environment;
use crate::failure::{Failure, Result};

/// A configuration and what to tell the user about it.
#[derive(Debug)]
pub struct Resolved {
    /// What the router is started with.
    pub config: Config,
    /// Containers send from their own addresses only.
    pub guard: bool,
    /// What the user should know, one line each.
    pub warnings: Vec<String>,
}

/// Who resolves.
pub enum Role {
    /// `launch`, or `router` in the foreground: finds the passwords.
    Front,
    /// The process that `launch` started, with the passwords it was handed.
    Launched(Vec<Password>),
}

/// Makes a configuration of `options` and `environment`, or says what is wrong
/// with them. Touches nothing.
pub fn resolve(options: LaunchOptions, environment: &Environment, role: Role) -> Result<Resolved> {
    let mut warnings = Vec::new();
    let passwords = match role {
        Role::Front => passwords::find(&options, environment, &mut warnings)?,
        Role::Launched(passwords) => passwords,
    };
    let password_file = options.password_file.as_deref().map(std::path::absolute).transpose();
    let password_file = password_file.map_err(|error| {
        Failure::new("cannot find the password file", error, "name it by a path that begins with /")
    })?;
    let test = TestKnobs::read(|name| environment.text(name).ok().flatten())
        .map_err(|why| Failure::usage("cannot use a test switch", why, "unset it"))?;
    for name in TestKnobs::VARIABLES.into_iter().filter(|name| environment.has(name)) {
        warnings.push(format!("{name} is set: a switch for tests only"));
    }
    environment.check_log_format()?;
    limit("peers", options.targets.len(), MAX_TARGETS)?;
    limit("advertised addresses", options.advertise.len(), MAX_ADVERTISED)?;
    if options.require_encryption && !options.trusted_subnets.is_empty() {
        warnings.push("--trusted-subnets has no effect beside --require-encryption".into());
    }
    if options.require_encryption && passwords.is_empty() {
        return Err(Failure::usage(
            "cannot require encryption",
            "no password was given: every link of a network without one is unencrypted",
            "give the password, or leave --require-encryption out",
        ));
    }
    if let Some(cores) = &options.cores {
        refuse_missing(cores)?;
    }
    limit("trusted subnets", options.trusted_subnets.len(), MAX_TRUSTED_SUBNETS)?;
    for target in &options.advertise {
        refuse_name(target)?;
    }
    if let Some(host) = options.host {
        refuse_unusable(host)?;
    }
    let guard = options.guard;
    let config = Config {
        run_dir: environment.run_dir()?,
        state_dir: environment.state_dir()?,
        name: options.name,
        nickname: options.nickname.unwrap_or_else(host_name),
        port: match options.port {
            Some(port) => port,
            None => environment.port()?,
        },
        host: options.host,
        advertise: options.advertise,
        mtu: match options.mtu {
            Some(mtu) => mtu,
            None => environment.mtu()?,
        },
        cores: options.cores,
        shards: options.shards,
        conn_limit: options.conn_limit,
        trusted_subnets: options.trusted_subnets,
        require_encryption: options.require_encryption,
        discovery: !options.no_discovery,
        offload: options.offload.unwrap_or_default(),
        passwords,
        password_file,
        clear: options.clear,
        targets: options.targets,
        http: environment.http()?,
        log_level: if options.debug { LogLevel::Debug } else { options.log_level.unwrap_or_default() },
        test,
    };
    let socket = weave_api::socket::path(&config.run_dir);
    if socket.as_os_str().len() > weave_api::socket::SOCKET_PATH_MAX {
        let error = weave_api::socket::SocketError::TooLong(socket);
        return Err(Failure::usage("cannot use WEAVE_RUN_DIR", error, "name a shorter one"));
    }
    Ok(Resolved { config, guard, warnings })
}

fn host_name() -> Nickname {
    Nickname::from_host_name(&rustix::system::uname().nodename().to_string_lossy())
}

fn limit(what: &str, count: usize, most: usize) -> Result<()> {
    if count <= most {
        return Ok(());
    }
    Err(Failure::usage("cannot launch", format_args!("{count} {what} are more than {most}"), "name fewer"))
}

fn refuse_name(target: &Target) -> Result<()> {
    match target.host {
        TargetHost::Address(_) => Ok(()),
        TargetHost::Name(_) => Err(Failure::usage(
            format_args!("cannot advertise {target}"),
            "it is a name",
            "give the address that other peers shall use",
        )),
    }
}

/// A shard that is pinned to no core would run anywhere.
fn refuse_missing(cores: &CoreList) -> Result<()> {
    let Ok(usable) = rustix::thread::sched_getaffinity(None) else { return Ok(()) };
    let Some(missing) = cores.as_slice().iter().find(|core| !usable.is_set(**core)) else { return Ok(()) };
    Err(Failure::usage(
        format_args!("cannot forward on core {missing}"),
        "this host has none of that number, or this process may not run there",
        "name cores of `taskset -pc $$`, or leave --cores out",
    ))
}

fn refuse_unusable(host: IpAddr) -> Result<()> {
    let why = if host.is_unspecified() {
        "it stands for every address, which is the default"
    } else if host.is_multicast() || host == IpAddr::from([255; 4]) {
        "it is not the address of one host"
    } else {
        return Ok(());
    };
    Err(Failure::usage(format_args!("cannot bind to {host}"), why, "name an address of this host, or none"))
}
