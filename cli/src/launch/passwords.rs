//! Where the network password comes from.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use weave_router::config::{PASSWORD_SHORT, Password, PasswordFile};
use zeroize::Zeroizing;

use super::options::LaunchOptions;
use crate::environment::Environment;
use crate::failure::{Failure, Result};

/// A password as it was typed, zeroed when dropped, never printed.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl FromStr for Secret {
    type Err = &'static str;

    /// Nobody means an option to be the password, with one dash or two: its value is empty then.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = text.strip_prefix('-').map(|rest| rest.trim_start_matches('-'));
        let name = name.and_then(|name| name.split('=').next());
        let options = <LaunchOptions as clap::Args>::augment_args(clap::Command::new(""));
        let is_option = |name: &str| options.get_arguments().any(|option| option.get_long() == Some(name));
        if text.starts_with("--") || name.is_some_and(is_option) {
            return Err("it looks like an option: such a password goes into a file");
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The passwords that options and environment name, the option first; what to
/// warn about goes to `warnings`.
pub fn find(
    options: &LaunchOptions,
    environment: &Environment,
    warnings: &mut Vec<String>,
) -> Result<Vec<Password>> {
    let what = "cannot use the password";
    let passwords = if let Some(Secret(text)) = &options.password {
        let password = Password::new(text.clone());
        vec![
            password
                .map_err(|why| Failure::usage(what, why, "give another one, or none for a clear network"))?,
        ]
    } else if let Some(path) = &options.password_file {
        read_file(path, warnings)?
    } else if let Some(text) = environment.password()? {
        let password = Password::new(text);
        vec![password.map_err(|why| {
            Failure::usage("cannot use WEAVE_PASSWORD", why, "set another one, or unset it")
        })?]
    } else {
        Vec::new()
    };
    if options.clear && !passwords.is_empty() {
        return Err(Failure::usage(
            "cannot launch",
            "--clear and a password contradict each other",
            "leave out one of them (WEAVE_PASSWORD counts too)",
        ));
    }
    if passwords.first().is_some_and(Password::is_short) {
        warnings.push(format!(
            "the password has fewer than {PASSWORD_SHORT} characters and may be guessed; choose a longer one"
        ));
    }
    Ok(passwords)
}

fn read_file(path: &Path, warnings: &mut Vec<String>) -> Result<Vec<Password>> {
    let remedy = "name a file with the password on its first line, readable by this user";
    let file = PasswordFile::read(path).map_err(|error| {
        Failure::new(format_args!("cannot read the password file {}", path.display()), error, remedy)
    })?;
    if file.open_to_others {
        warnings.push(format!("other users may reach {}; `chmod 600` it", path.display()));
    }
    Ok(file.passwords)
}
