//! The network password in memory: zeroed when dropped, never printed.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Longest password, bytes.
pub const PASSWORD_MAX: usize = 1024;
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
