//! The network password in memory: zeroed when dropped, never printed.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Longest password, bytes.
pub const PASSWORD_MAX: usize = 1024;
/// Longest password file, bytes: two passwords with their line ends.
const FILE_MAX: u64 = 2 * (PASSWORD_MAX as u64 + 2);
/// A password of fewer characters is warned about: it can be guessed.
pub const PASSWORD_SHORT: usize = 12;

/// A network password: 1 to [`PASSWORD_MAX`] bytes of text, no control characters.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Password(String);

/// Why a text holds no password. Never shows the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParsePasswordsError {
    /// Nothing there.
    #[error("it is empty")]
    Empty,
    /// More than [`PASSWORD_MAX`] bytes.
    #[error("it is longer than {PASSWORD_MAX} bytes")]
    TooLong,
    /// A tab, NUL or other control character: most likely the wrong file.
    #[error("it holds a control character")]
    ControlCharacter,
    /// More than the current and the previous password.
    #[error("it has more than two lines (the current password, then the previous one)")]
    TooManyLines,
}

/// A password file could not be read. Never shows its content.
#[derive(Debug, thiserror::Error)]
pub enum ReadPasswordsError {
    /// The file system's answer.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A directory.
    #[error("it is a directory")]
    Directory,
    /// Not text.
    #[error("it is not UTF-8 text")]
    NotText,
    /// Text that holds no passwords.
    #[error(transparent)]
    Content(#[from] ParsePasswordsError),
}

/// What a password file holds.
#[derive(Debug)]
pub struct PasswordFile {
    /// The current password, and perhaps the previous one.
    pub passwords: Vec<Password>,
    /// True if users other than the owner may read or change it.
    pub open_to_others: bool,
}

impl PasswordFile {
    /// Reads the file at `path`, at most a little over two kilobytes of it.
    ///
    /// # Errors
    /// [`ReadPasswordsError`].
    pub fn read(path: &Path) -> Result<Self, ReadPasswordsError> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(ReadPasswordsError::Directory);
        }
        let open_to_others = metadata.is_file() && metadata.mode() & 0o077 != 0;
        // No reallocation leaves a copy behind that nobody wipes.
        let mut text = Zeroizing::new(Vec::with_capacity(FILE_MAX as usize + 1));
        file.take(FILE_MAX + 1).read_to_end(&mut text)?;
        let text = std::str::from_utf8(&text).map_err(|_| ReadPasswordsError::NotText)?;
        Ok(Self { passwords: Password::lines(text)?, open_to_others })
    }
}

impl Password {
    /// The password `text`.
    ///
    /// # Errors
    /// When it is empty, too long or holds a control character.
    pub fn new(text: Zeroizing<String>) -> Result<Self, ParsePasswordsError> {
        if text.is_empty() {
            return Err(ParsePasswordsError::Empty);
        }
        if text.len() > PASSWORD_MAX {
            return Err(ParsePasswordsError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(ParsePasswordsError::ControlCharacter);
        }
        Ok(Self(text.as_str().to_owned()))
    }

    /// The passwords in a file's `text`: one line, or two (current, previous).
    ///
    /// # Errors
    /// When a line is no password, or there are more than two.
    pub fn lines(text: &str) -> Result<Vec<Self>, ParsePasswordsError> {
        let mut passwords = Vec::new();
        for line in text.lines() {
            if passwords.len() == 2 {
                return Err(ParsePasswordsError::TooManyLines);
            }
            passwords.push(Self::new(Zeroizing::new(line.to_owned()))?);
        }
        if passwords.is_empty() { Err(ParsePasswordsError::Empty) } else { Ok(passwords) }
    }

    /// The bytes to stretch.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// True when it has fewer than [`PASSWORD_SHORT`] characters.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.0.chars().count() < PASSWORD_SHORT
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_file_holds_one_password_or_two() {
        assert_eq!(Password::lines("wEaVe\n").unwrap()[0].as_bytes(), b"wEaVe");
        assert_eq!(Password::lines("with spaces ").unwrap()[0].as_bytes(), b"with spaces ");
        assert_eq!(Password::lines("new\r\nold\r\n").unwrap()[1].as_bytes(), b"old");
    }

    #[test]
    fn other_files_hold_none() {
        let long = "x".repeat(PASSWORD_MAX + 1);
        for (text, error) in [
            ("", ParsePasswordsError::Empty),
            ("\n", ParsePasswordsError::Empty),
            ("a\n\n", ParsePasswordsError::Empty),
            ("a\nb\nc", ParsePasswordsError::TooManyLines),
            ("a\0b", ParsePasswordsError::ControlCharacter),
            (&long, ParsePasswordsError::TooLong),
        ] {
            assert_eq!(Password::lines(text).unwrap_err(), error);
        }
    }

    #[test]
    fn debug_output_shows_nothing_of_it() {
        assert_eq!(format!("{:?}", Password::lines("wEaVe").unwrap()), "[Password(…)]");
    }
}
