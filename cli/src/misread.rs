//! One line out of the several in which clap says what it could not read.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::argv::{Part, Token};
use crate::failure::Failure;

/// What is wrong, clap's tips, where to read on.
pub fn failure(error: &clap::Error, tokens: &[Token]) -> Failure {
    let commands: Vec<_> = tokens.iter().filter(|token| token.part == Part::Command).collect();
    let commands: String =
        commands.iter().map(|token| format!(" {}", token.text.to_string_lossy())).collect();
    let help = format!("see `weave{commands} --help`");
    Failure::usage(
        "cannot read the command line",
        unknown_option(error, tokens).unwrap_or_else(|| joined(error)),
        help,
    )
}

/// `-foo` is one option here, not the short options f, o, o that clap takes it for.
fn unknown_option(error: &clap::Error, tokens: &[Token]) -> Option<String> {
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let Some(ContextValue::String(start)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let short = start.starts_with('-') && !start.starts_with("--");
    let typed = tokens.iter().filter(|token| short && token.part == Part::Other);
    let mut typed = typed.map(|token| token.text.to_string_lossy());
    typed
        .find(|text| text.starts_with(start.as_str()))
        .map(|text| format!("unexpected argument '{text}' found"))
}

/// The paragraphs before the usage, joined.
fn joined(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let end = ["\n\nUsage:", "\n\nFor more information"].iter().filter_map(|mark| text.find(mark)).min();
    let paragraphs = text.get(..end.unwrap_or(text.len())).unwrap_or(text).split("\n\n");
    let joined: Vec<String> = paragraphs
        .map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "))
        .map(|paragraph| paragraph.strip_prefix("tip: ").unwrap_or(&paragraph).to_owned())
        .filter(|paragraph| !paragraph.is_empty())
        .collect();
    joined.join("; ")
}
