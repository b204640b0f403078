//! One line out of the several in which clap says what it could not read.

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::argv::{Part, Token};
use crate::failure::Failure;

/// What is wrong, clap's tips, where to read on.
pub fn failure(error: &clap::Error, tokens: &[Token]) -> Failure {
    let commands: Vec<_> = tokens.iter().filter(|token| token.part == Part::Command).collect();
    let commands: String =
        commands.iter().map(|token| format!(" {}", token.text.to_string_lossy())).collect();
    let help = match former_option(error) {
        Some(remedy) => remedy.to_owned(),
        None => format!("see `weave{commands} --help`"),
    };
    Failure::usage(
        "cannot read the command line",
        unknown_option(error, tokens).unwrap_or_else(|| joined(error)),
        help,
    )
}

/// Options of the original for what there is not here, by how they begin: what to do instead.
const FORMER_OPTIONS: [(&str, &str); 4] = [
    ("--ipalloc-", "addresses are named, not allocated: leave it out, and name one with each container"),
    ("--dns-listen-address", "use `weave launch-dns --listen ADDRESS`"),
    ("--no-multicast-route", "there is always a route for multicast: leave it out"),
    ("--token", "there is no cloud service: leave it out"),
];

fn former_option(error: &clap::Error) -> Option<&'static str> {
    let Some(ContextValue::String(option)) = error.get(ContextKind::InvalidArg) else { return None };
    let known = FORMER_OPTIONS.iter().find(|(start, _)| option.starts_with(start));
    known.filter(|_| error.kind() == ErrorKind::UnknownArgument).map(|(_, remedy)| *remedy)
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
        // Nobody who types an option that there is not means it to be an address or a peer.
        .filter(|paragraph| !paragraph.is_empty() && !paragraph.contains("as a value, use '-- "))
        .collect();
    joined.join("; ")
}
