//! Long options with one dash: `-password wEaVe` is `--password wEaVe`.
//!
//! clap has no such setting (clap-rs/clap#1210), so the arguments are
//! rewritten before it sees them, led by clap's own description of the
//! commands: there is no second list of options to keep in step. A token is
//! rewritten only if it is one dash and exactly the long name of an option of
//! the command it stands in; values of options stay as they are.

use std::ffi::{OsStr, OsString};

use clap::{Arg, Command};

/// A token of the command line and its part in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The token as clap shall read it.
    pub text: OsString,
    /// What it is.
    pub part: Part,
}

/// The part a token plays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// The name of the executable.
    Program,
    /// The name of a command.
    Command,
    /// An option, with its id and perhaps its value.
    Option(String),
    /// The value of the option before it, with the option's id.
    Value(String),
    /// Anything else: positional arguments, short options, what is unknown.
    Other,
}

/// Reads `arguments` with `command`, which must have been built
/// ([`Command::build`]), so that it knows its global options.
pub fn read(command: &Command, arguments: &[OsString]) -> Vec<Token> {
    let mut tokens = Vec::with_capacity(arguments.len());
    let mut command = command;
    let mut value_of: Option<String> = None;
    let mut only_values = false;
    for (index, text) in arguments.iter().enumerate() {
        let mut push = |text: OsString, part| tokens.push(Token { text, part });
        if index == 0 {
            push(text.clone(), Part::Program);
        } else if let Some(id) = value_of.take() {
            push(text.clone(), Part::Value(id));
        } else if only_values {
            push(text.clone(), Part::Other);
        } else if text == "--" {
            only_values = true;
            push(text.clone(), Part::Other);
        } else if let Some((option, spelled)) = option(command, text) {
            let id = option.get_id().to_string();
            if takes_value(option) && !spelled.as_encoded_bytes().contains(&b'=') {
                value_of = Some(id.clone());
            }
            push(spelled, Part::Option(id));
        } else if let Some(inner) = text.to_str().and_then(|name| command.find_subcommand(name)) {
            command = inner;
            push(text.clone(), Part::Command);
        } else {
            // What follows the first argument of `run` is another program's.
            only_values = command.get_positionals().any(Arg::is_trailing_var_arg_set);
            push(text.clone(), Part::Other);
        }
    }
    tokens
}

/// The option that `text` names, and how clap wants it spelled.
fn option<'a>(command: &'a Command, text: &OsStr) -> Option<(&'a Arg, OsString)> {
    let text = text.to_str()?;
    let dashes = if text.starts_with("--") { 2 } else { 1 };
    let body = text.strip_prefix('-').map(|rest| rest.strip_prefix('-').unwrap_or(rest))?;
    let name = body.split('=').next().unwrap_or(body);
    if let Some(option) = command.get_arguments().find(|option| has_long(option, name)) {
        return Some((option, format!("--{body}").into()));
    }
    // A short option, so that its value is known for one.
    let mut letters = body.chars();
    let letter = letters.next().filter(|_| dashes == 1 && letters.as_str().is_empty())?;
    let option = command.get_arguments().find(|option| option.get_short() == Some(letter))?;
    Some((option, text.into()))
}

fn has_long(option: &Arg, name: &str) -> bool {
    option.get_long() == Some(name) || option.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
}

fn takes_value(option: &Arg) -> bool {
    option.get_action().takes_values() && option.get_num_args().is_none_or(|range| range.min_values() > 0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    fn description() -> Command {
        let mut command = Command::new("weave")
            .arg(Arg::new("local").long("local").global(true).action(clap::ArgAction::SetTrue))
            .subcommand(
                Command::new("launch")
                    .arg(Arg::new("password").long("password"))
                    .arg(Arg::new("nickname").long("nickname").alias("nick"))
                    .arg(Arg::new("debug").long("debug").action(clap::ArgAction::SetTrue))
                    .arg(Arg::new("peers").num_args(0..)),
            )
            .subcommand(Command::new("status").arg(Arg::new("output").short('o')).arg(Arg::new("part")));
        command.build();
        command
    }

    fn texts(arguments: &[OsString]) -> Vec<OsString> {
        read(&description(), arguments).into_iter().map(|token| token.text).collect()
    }

    fn rewritten(line: &str) -> String {
        let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        texts(&arguments).join(OsStr::new(" ")).into_string().unwrap_or_default()
    }

    #[test]
    fn one_dash_before_a_long_option_becomes_two() {
        for (typed, read) in [
            ("weave launch -password x", "weave launch --password x"),
            ("weave launch -password=x", "weave launch --password=x"),
            ("weave launch --password x", "weave launch --password x"),
            ("weave -local launch", "weave --local launch"),
            ("weave launch -local", "weave launch --local"),
            ("weave launch -debug host2 -nick n", "weave launch --debug host2 --nick n"),
        ] {
            assert_eq!(rewritten(typed), read);
        }
    }

    #[test]
    fn what_another_program_reads_stays_as_typed() {
        let mut command = Command::new("weave").subcommand(
            Command::new("run")
                .arg(Arg::new("with-dns").long("with-dns").action(clap::ArgAction::SetTrue))
                .arg(Arg::new("rest").num_args(0..).trailing_var_arg(true).allow_hyphen_values(true)),
        );
        command.build();
        let line = ["weave", "run", "-with-dns", "10.2.1.1/24", "-with-dns", "-it", "--", "-with-dns"];
        let read = read(&command, &line.map(OsString::from));
        let texts: Vec<_> = read.iter().map(|token| token.text.to_string_lossy()).collect();
        assert_eq!(texts[2], "--with-dns");
        assert_eq!(texts[3..], line[3..]);
    }

    #[test]
    fn values_positions_and_unknown_options_stay_as_typed() {
        for line in [
            "weave launch --password -nickname",
            "weave launch --nickname -debug",
            "weave launch -- -password",
            "weave launch -passwort x",
            "weave launch -p x",
            "weave launch -",
            "weave launch -=",
            "weave status -password x",
            "weave -password x launch",
            "weave status -o json",
            "weave status -o -local",
            "weave status -ojson",
            "weave nonsense -local-x",
        ] {
            assert_eq!(rewritten(line), line);
        }
        assert_eq!(rewritten("weave launch -password -nickname"), "weave launch --password -nickname");
    }

    #[test]
    fn a_command_is_looked_for_only_where_one_may_stand() {
        // `launch` is here the value of an option, so `-password` belongs to no command.
        assert_eq!(rewritten("weave status -o launch -password"), "weave status -o launch -password");
    }

    proptest! {
        #[test]
        fn rewriting_keeps_every_token_in_its_place_and_changes_nothing_twice(
            arguments in vec(select(&WORDS).prop_map(OsString::from), 0..8),
        ) {
            let once = texts(&arguments);
            prop_assert_eq!(once.len(), arguments.len());
            for (typed, read) in arguments.iter().zip(&once) {
                let read = read.to_string_lossy().into_owned();
                prop_assert!(typed.as_os_str() == read.as_str() || typed.as_os_str() == &read[1..]);
            }
            prop_assert_eq!(texts(&once), once);
        }

        #[test]
        fn arbitrary_arguments_never_panic(arguments in vec(vec(any::<u8>(), 0..10), 0..6)) {
            let arguments: Vec<OsString> = arguments.into_iter().map(OsString::from_vec).collect();
            prop_assert_eq!(texts(&arguments).len(), arguments.len());
        }
    }

    const WORDS: [&str; 16] = [
        "weave",
        "launch",
        "status",
        "-password",
        "--password",
        "-password=x",
        "-nick",
        "-debug",
        "-local",
        "-o",
        "-",
        "--",
        "",
        "x",
        "-x",
        "-=",
    ];
}
