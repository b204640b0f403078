//! Options and variables of the original that have no meaning here: taken,
//! named in one line, without effect.

use clap::Args;

use crate::environment::Environment;
use crate::output;

/// Variables of the original's script.
const VARIABLES: [&str; 4] = ["WEAVE_DOCKER_ARGS", "WEAVEDNS_DOCKER_ARGS", "WEAVE_CONTAINER_NAME", "PROCFS"];

/// Options of the original's script, accepted with every command.
#[derive(Debug, Args)]
pub struct IgnoredOptions {
    #[arg(long, global = true, hide = true)]
    local: bool,
    #[arg(long, global = true, hide = true)]
    no_fastdp: bool,
    #[arg(long, global = true, hide = true)]
    no_restart: bool,
    #[arg(long, global = true, hide = true)]
    rewrite_hosts: bool,
    #[arg(long, global = true, hide = true)]
    no_rewrite_hosts: bool,
    #[arg(long, global = true, hide = true)]
    no_default_ipalloc: bool,
    #[arg(long, global = true, hide = true)]
    resume: bool,
    #[arg(long, global = true, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    plugin: Option<bool>,
    #[arg(long, global = true, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    proxy: Option<bool>,
}

impl IgnoredOptions {
    /// Names what is ignored, if anything is.
    pub fn tell(&self, environment: &Environment) {
        let options = [
            ("--local", self.local),
            ("--no-fastdp", self.no_fastdp),
            ("--no-restart", self.no_restart),
            ("--rewrite-hosts", self.rewrite_hosts),
            ("--no-rewrite-hosts", self.no_rewrite_hosts),
            ("--no-default-ipalloc", self.no_default_ipalloc),
            ("--resume", self.resume),
            ("--plugin", self.plugin.is_some()),
            ("--proxy", self.proxy.is_some()),
        ];
        let options = options.iter().filter(|(_, set)| *set).map(|(name, _)| *name);
        let variables = VARIABLES.into_iter().filter(|name| environment.has(name));
        let names: Vec<&str> = options.chain(variables).collect();
        if !names.is_empty() {
            output::note(format_args!("ignored, without meaning in this version: {}", names.join(", ")));
        }
    }
}
