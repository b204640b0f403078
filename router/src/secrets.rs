//! The secrets of the network, from what was typed or stands in a file.

use crate::config::{Password, PasswordFile, ReadPasswordsError};
use std::path::{Path, PathBuf};
use weave_crypto::{Effort, Secrets, StretchError};

/// Stretches the passwords, current first; none: a clear network. Takes a while
/// and much memory: not for the thread of the control core.
///
/// # Errors
/// [`StretchError`].
pub(crate) fn stretch(passwords: &[Password], effort: Effort) -> Result<Secrets, StretchError> {
    let mut stretched = passwords
        .iter()
        .map(|password| weave_crypto::Password::stretch(password.as_bytes(), effort))
        .collect::<Result<Vec<_>, _>>()?
        .into_iter();
    Ok(match stretched.next() {
        None => Secrets::Clear,
        Some(current) => Secrets::Encrypted { current, previous: stretched.next() },
    })
}

/// Why a password file was not taken up; the old secrets stay.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReloadError {
    /// There is none.
    #[error("this router was launched without a password file")]
    NoFile,
    /// The file.
    #[error("{}: {cause}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        cause: ReadPasswordsError,
    },
    /// The memory to stretch it.
    #[error(transparent)]
    Stretch(#[from] StretchError),
}

/// Reads the password file again and stretches what it holds.
///
/// # Errors
/// [`ReloadError`].
pub(crate) fn read_again(path: Option<&Path>, effort: Effort) -> Result<Secrets, ReloadError> {
    let path = path.ok_or(ReloadError::NoFile)?;
    let file =
        PasswordFile::read(path).map_err(|cause| ReloadError::File { path: path.to_owned(), cause })?;
    if file.open_to_others {
        tracing::warn!("other users may reach the password file {}", path.display());
    }
    Ok(stretch(&file.passwords, effort)?)
}
