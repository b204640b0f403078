//! Reading a recipe.

use weave_perf::lab::Place;

use super::{Demand, Recipe, Step, Whereabouts};

impl Recipe {
    /// Reads a recipe; ends the test with the number of the line that cannot be read.
    #[track_caller]
    pub(super) fn read(text: &str) -> Self {
        let mut recipe = Self::default();
        let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
        while let Some((number, line)) = lines.next() {
            if let Some(directive) = line.strip_prefix("! ") {
                recipe.directive(directive).unwrap_or_else(|| panic!("line {number}: {line}"));
            } else if let Some((prompt, command)) = prompt(line) {
                let mut command = command.to_owned();
                while let Some(begun) = command.strip_suffix('\\') {
                    let (_, more) = lines.next().expect("a line that goes on");
                    command = format!("{}{more}", begun);
                }
                let prompt = prompt.to_owned();
                recipe.steps.push(Step {
                    line: number,
                    prompt,
                    command,
                    expected: Vec::new(),
                    demands: Vec::new(),
                });
            } else if !line.is_empty() && !line.starts_with('#') {
                let step = recipe.steps.last_mut().unwrap_or_else(|| panic!("line {number}: {line}"));
                step.expected.push(line.to_owned());
            }
        }
        recipe
    }

    /// `None`: it is not understood.
    fn directive(&mut self, text: &str) -> Option<()> {
        let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
        match verb {
            "engines" => {
                let (engines, plain) = rest.split_once(", plain ")?;
                (self.engines, self.plain) = (Some(engines.parse().ok()?), Some(plain.parse().ok()?));
            }
            "places" => self.places = rest.split(' ').map(place).collect::<Option<_>>()?,
            "at" => {
                let (prompt, place) = rest.split_once(": ")?;
                self.prompts.push((prompt.to_owned(), whereabouts(place)?));
            }
            "until" => self.demand(Demand::Until(rest.to_owned()))?,
            "relays" if !rest.is_empty() => self.relays.push(rest.to_owned()),
            "direct" => self.demand(Demand::Direct)?,
            "fails" => self.demand(Demand::Fails)?,
            "arrives" => {
                let (prompt, text) = rest.strip_prefix("at ")?.split_once(": ")?;
                self.demand(Demand::Arrives { prompt: prompt.to_owned(), text: text.to_owned() })?;
            }
            _ => return None,
        }
        Some(())
    }

    fn demand(&mut self, demand: Demand) -> Option<()> {
        self.steps.last_mut()?.demands.push(demand);
        Some(())
    }

    /// Where a prompt is: as the recipe says, or `hostN` by itself.
    #[track_caller]
    pub(super) fn place_of(&self, prompt: &str) -> Whereabouts {
        let said = self.prompts.iter().find(|(name, _)| name == prompt).map(|(_, place)| place.clone());
        said.or_else(|| host(prompt).map(Whereabouts::Host))
            .unwrap_or_else(|| panic!("the recipe does not say where {prompt} is"))
    }
}

/// `host1$ command`, `host# command`, `root@28841bd02eff:/# command`.
fn prompt(line: &str) -> Option<(&str, &str)> {
    let (prompt, command) = line.split_once(' ').unwrap_or((line, ""));
    let on_host = prompt.strip_suffix(['$', '#']).filter(|name| name.starts_with("host"));
    let place = prompt.strip_suffix(":/#").filter(|name| name.starts_with("root@")).or(on_host)?;
    Some((place, command.trim()))
}

fn host(name: &str) -> Option<usize> {
    name.strip_prefix("host")?.parse::<usize>().ok()?.checked_sub(1)
}

fn whereabouts(text: &str) -> Option<Whereabouts> {
    match text.split_once(" of ") {
        None => host(text).map(Whereabouts::Host),
        Some((variable, place)) => {
            let variable = variable.strip_prefix('$')?.to_owned();
            Some(Whereabouts::Container { host: host(place)?, variable })
        }
    }
}

fn place(text: &str) -> Option<Place> {
    let segments = text.split(',').map(|segment| segment.parse().ok()).collect::<Option<Vec<u8>>>()?;
    Some(Place::on(&segments))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_commands_outputs_and_demands() {
        let recipe = Recipe::read(
            "# what it is\n! engines 3, plain 0\n! at root@0a1b: $C of host2\nhost1$ iptables -A \\\n    -j X\n\
             out\n! fails\n\nroot@0a1b:/# nc -lk -p 4422\n! arrives at host3: Hello, world.\n",
        );
        assert_eq!((recipe.engines, recipe.plain), (Some(3), Some(0)));
        let container = Whereabouts::Container { host: 1, variable: "C".into() };
        assert_eq!(recipe.place_of("root@0a1b"), container);
        assert_eq!(recipe.place_of("host3"), Whereabouts::Host(2));
        let [first, second] = recipe.steps.as_slice() else { panic!("{:?}", recipe.steps) };
        assert_eq!((first.line, first.command.as_str()), (4, "iptables -A -j X"));
        assert_eq!((&first.expected, &first.demands), (&vec!["out".to_owned()], &vec![Demand::Fails]));
        let arrives = Demand::Arrives { prompt: "host3".into(), text: "Hello, world.".into() };
        assert_eq!(second.demands, [arrives]);
        assert!(second.is_endless() && !first.is_endless());
        assert_eq!((first.listens_at(), second.listens_at()), (None, Some(4422)));
    }

    #[test]
    #[should_panic(expected = "line 1")]
    fn a_demand_of_nothing_is_refused() {
        let _ = Recipe::read("! untl x\n");
    }
}
