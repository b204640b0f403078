//! The variables that all commands share. An empty variable counts as unset.

use std::path::{Path, PathBuf};

use weave_host::engine;
use weave_router::config::{
    DEFAULT_MTU, DEFAULT_PORT, DEFAULT_STATUS_ADDR, Http, MAX_MTU, MAX_STATUS_HOSTS, MIN_MTU,
    parse_status_addr,
};
use weave_router::logging;
use weave_wire::HostName;
use zeroize::Zeroizing;

use crate::failure::{Failure, Result};

/// What `WEAVE_RUN_DIR` is when it is unset.
const DEFAULT_RUN_DIR: &str = "/run/weave";
/// What `WEAVE_STATE_DIR` is when it is unset.
const DEFAULT_STATE_DIR: &str = "/var/lib/weave";

/// Where commands read variables from; tests have their own.
pub struct Environment<'a> {
    lookup: &'a dyn Fn(&str) -> Option<std::ffi::OsString>,
}

impl Environment<'static> {
    /// The variables of this process.
    pub fn of_process() -> Self {
        Self { lookup: &|name| std::env::var_os(name) }
    }
}

impl<'a> Environment<'a> {
    /// Variables answered by `lookup`.
    #[cfg(test)]
    pub fn new(lookup: &'a dyn Fn(&str) -> Option<std::ffi::OsString>) -> Self {
        Self { lookup }
    }

    /// The text of `name`; `None` when unset or empty.
    pub fn text(&self, name: &str) -> Result<Option<String>> {
        match (self.lookup)(name).filter(|value| !value.is_empty()) {
            None => Ok(None),
            Some(value) => value.into_string().map(Some).map_err(|_| {
                Failure::usage(format_args!("cannot read {name}"), "it is not UTF-8 text", "set it anew")
            }),
        }
    }

    /// True when `name` is set, even to nothing.
    pub fn has(&self, name: &str) -> bool {
        (self.lookup)(name).is_some()
    }

    /// `WEAVE_RUN_DIR`, absolute.
    pub fn run_dir(&self) -> Result<PathBuf> {
        self.directory("WEAVE_RUN_DIR", DEFAULT_RUN_DIR)
    }

    /// `WEAVE_STATE_DIR`, absolute.
    pub fn state_dir(&self) -> Result<PathBuf> {
        self.directory("WEAVE_STATE_DIR", DEFAULT_STATE_DIR)
    }

    /// `WEAVE_PASSWORD`.
    pub fn password(&self) -> Result<Option<Zeroizing<String>>> {
        Ok(self.text("WEAVE_PASSWORD")?.map(Zeroizing::new))
    }

    /// `DOCKER_HOST`: where the container engine listens, without the password of a user.
    pub fn engine_host(&self) -> Result<String> {
        let host = self.text("DOCKER_HOST")?;
        Ok(host.map_or_else(|| engine::DEFAULT_HOST.to_owned(), |host| engine::without_user(&host)))
    }

    /// `DOCKER_BRIDGE`: the engine's default bridge.
    pub fn engine_bridge(&self) -> Result<String> {
        const NAME_MAX: usize = 15;
        let name = self.text("DOCKER_BRIDGE")?.unwrap_or_else(|| "docker0".to_owned());
        let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if name.len() <= NAME_MAX && name.chars().all(plain) {
            return Ok(name);
        }
        let why = format_args!("{name:.80?} is not the name of an interface").to_string();
        Err(Failure::usage("cannot use DOCKER_BRIDGE", why, "name the engine's bridge, or unset it"))
    }

    /// `WEAVE_PORT`.
    pub fn port(&self) -> Result<u16> {
        Ok(self.number("WEAVE_PORT", 1, u16::MAX)?.unwrap_or(DEFAULT_PORT))
    }

    /// `WEAVE_MTU`.
    pub fn mtu(&self) -> Result<u16> {
        Ok(self.mtu_if_set()?.unwrap_or(DEFAULT_MTU))
    }

    /// `WEAVE_MTU`, if it is set.
    pub fn mtu_if_set(&self) -> Result<Option<u16>> {
        self.number("WEAVE_MTU", MIN_MTU, MAX_MTU)
    }

    /// `WEAVE_STATUS_ADDR`, or `WEAVE_METRICS_ADDR`, and `WEAVE_STATUS_HOSTS`. An address that is
    /// set, but empty, means off.
    pub fn http(&self) -> Result<Option<Http>> {
        let name = ["WEAVE_STATUS_ADDR", "WEAVE_METRICS_ADDR"].into_iter().find(|name| self.has(name));
        let names = self.status_hosts()?;
        let Some(name) = name else {
            return Ok(Some(Http { address: DEFAULT_STATUS_ADDR, names }));
        };
        let Some(text) = self.text(name)? else { return Ok(None) };
        let address = parse_status_addr(&text).map_err(|why| {
            Failure::usage(
                format_args!("cannot use {name}"),
                why,
                "write ADDRESS:PORT, or nothing to switch it off",
            )
        })?;
        Ok(Some(Http { address, names }))
    }

    fn status_hosts(&self) -> Result<Vec<HostName>> {
        const NAME: &str = "WEAVE_STATUS_HOSTS";
        let Some(text) = self.text(NAME)? else { return Ok(Vec::new()) };
        let wrong = |why: &dyn std::fmt::Display| {
            Failure::usage(
                format_args!("cannot use {NAME}"),
                why,
                "name hosts, separated by commas, or unset it",
            )
        };
        let names: Vec<HostName> = text
            .split(',')
            .map(HostName::typed)
            .collect::<std::result::Result<_, _>>()
            .map_err(|why| wrong(&why))?;
        if names.len() > MAX_STATUS_HOSTS {
            return Err(wrong(&format_args!("{} names are more than {MAX_STATUS_HOSTS}", names.len())));
        }
        Ok(names)
    }

    /// Refuses a `WEAVE_LOG_FORMAT` that the log does not know.
    pub fn check_log_format(&self) -> Result<()> {
        match self.text(logging::FORMAT_VARIABLE)?.as_deref() {
            None | Some("text" | "json") => Ok(()),
            Some(other) => Err(Failure::usage(
                format_args!("cannot use {}={other:.40?}", logging::FORMAT_VARIABLE),
                "it is neither text nor json",
                "correct it or unset it",
            )),
        }
    }

    fn number(&self, name: &str, least: u16, most: u16) -> Result<Option<u16>> {
        let Some(text) = self.text(name)? else {
            return Ok(None);
        };
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        let number = text.parse().ok().filter(|number| digits && (least..=most).contains(number));
        number.map(Some).ok_or_else(|| {
            Failure::usage(
                format_args!("cannot use {name}={text:.40?}"),
                format_args!("it is not a number from {least} to {most}"),
                "correct it or unset it",
            )
        })
    }

    fn directory(&self, name: &str, default: &str) -> Result<PathBuf> {
        let value = (self.lookup)(name).filter(|value| !value.is_empty());
        let path = value.map_or_else(|| PathBuf::from(default), PathBuf::from);
        let path = std::path::absolute(&path).map_err(|error| {
            Failure::new(format_args!("cannot use {name}"), error, "name an absolute path")
        })?;
        if path == Path::new("/") {
            return Err(Failure::usage(
                format_args!("cannot use {name}"),
                "it is the root of the file system",
                "name a directory of its own",
            ));
        }
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn unset_and_empty_variables_mean_the_default() {
        for value in [None, Some("".into())] {
            let lookup = move |_: &str| value.clone();
            let environment = Environment::new(&lookup);
            assert_eq!(environment.port().unwrap(), 6783);
            assert_eq!(environment.mtu().unwrap(), 1376);
            assert_eq!(environment.run_dir().unwrap(), Path::new("/run/weave"));
            assert!(environment.password().unwrap().is_none());
        }
    }

    #[test]
    fn numbers_out_of_range_are_wrong_usage() {
        for value in ["0", "65536", "-1", "+1", "x", "6783 ", "6783;reboot"] {
            let lookup = move |_: &str| Some(value.into());
            let failure = Environment::new(&lookup).port().unwrap_err();
            assert!(failure.to_string().contains("WEAVE_PORT"), "{failure}");
        }
    }

    fn http(variables: &[(&str, &str)]) -> Result<Option<Http>> {
        let lookup =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, v)| (*v).into());
        Environment::new(&lookup).http()
    }

    #[test]
    fn the_status_address_has_a_default_and_two_variables_and_can_be_switched_off() {
        let address = |variables| http(variables).unwrap().map(|http| http.address.to_string());
        assert_eq!(address(&[]).as_deref(), Some("127.0.0.1:6782"));
        assert_eq!(address(&[("WEAVE_METRICS_ADDR", "[::1]:80")]).as_deref(), Some("[::1]:80"));
        let both = [("WEAVE_STATUS_ADDR", "10.0.0.1:1"), ("WEAVE_METRICS_ADDR", "10.0.0.2:2")];
        assert_eq!(address(&both).as_deref(), Some("10.0.0.1:1"));
        assert_eq!(address(&[("WEAVE_STATUS_ADDR", "")]), None);
    }

    #[test]
    fn a_status_address_that_is_none_is_wrong_usage() {
        for value in ["6782", "127.0.0.1", "localhost:6782", "127.0.0.1:0", "127.0.0.1:65536", " "] {
            let failure = http(&[("WEAVE_STATUS_ADDR", value)]).unwrap_err();
            assert!(failure.to_string().contains("WEAVE_STATUS_ADDR"), "{failure}");
        }
    }

    #[test]
    fn names_of_the_status_page_are_names_of_hosts() {
        let names = |value| http(&[("WEAVE_STATUS_HOSTS", value)]);
        assert_eq!(names("a.example.com,b").unwrap().unwrap().names.len(), 2);
        for value in ["a,,b", "http://a", "a b", &["a"; MAX_STATUS_HOSTS + 1].join(",")] {
            assert!(names(value).unwrap_err().to_string().contains("WEAVE_STATUS_HOSTS"));
        }
    }

    #[test]
    fn every_variable_is_documented() {
        let documented = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/environment.md"));
        let source = include_str!("environment.rs").split("#[cfg(test)]\nmod tests").next().unwrap();
        let quoted = source.split('"').skip(1).step_by(2);
        let read: Vec<&str> =
            quoted.filter(|text| text.starts_with("WEAVE_") || text.starts_with("DOCKER_")).collect();
        assert!(read.len() >= 9, "{read:?}");
        for name in read.into_iter().chain([logging::FORMAT_VARIABLE]) {
            assert!(documented.contains(&format!("`{name}`")), "docs/environment.md lacks {name}");
        }
    }
}
