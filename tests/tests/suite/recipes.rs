//! Every recipe of the feature page, its lines typed as they are printed there: `tests/recipes`.

use weave_tests::recipe::follow;

/// A test for each file.
macro_rules! recipes {
    ($($test:ident: $name:literal),* $(,)?) => {
        $(
            #[test]
            fn $test() {
                follow($name, include_str!(concat!("../../recipes/", $name, ".recipe")));
            }
        )*

        /// All of them, one after the other.
        const RECIPES: &[&str] = &[$(include_str!(concat!("../../recipes/", $name, ".recipe"))),*];
    };
}

recipes! {
    virtual_switch: "virtual-switch",
    application_isolation: "application-isolation",
    dynamic_attachment: "dynamic-attachment",
    security: "security",
    host_network_integration: "host-network-integration",
    service_export: "service-export",
    service_import: "service-import",
    service_binding: "service-binding",
    service_routing: "service-routing",
    multi_cloud: "multi-cloud",
    multi_hop: "multi-hop",
    dynamic_topologies: "dynamic-topologies",
    container_mobility: "container-mobility",
    fault_tolerance: "fault-tolerance",
}

/// Every line that the page has somebody type.
const PAGE: &str = include_str!("../../recipes/page.lines");

#[test]
fn every_line_of_the_page_is_typed_by_a_recipe() {
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let recipes: Vec<String> = RECIPES.iter().map(|text| text.replace("\\\n", " ")).collect();
    let typed: Vec<String> = recipes.iter().flat_map(|text| text.lines()).map(words).collect();
    for line in PAGE.lines() {
        // Where the page says no prompt, anybody types it.
        let is_it = |typed: &String| typed == line || line.starts_with("echo ") && typed.ends_with(line);
        assert!(typed.iter().any(is_it), "{line}");
    }
}

const README: &str = include_str!("../../../README.md");

/// The lines of the README that are typed on hosts, as they stand there.
fn typed_in_readme() -> Vec<&'static str> {
    let blocks = README.split("\n```\n").skip(1).step_by(2);
    blocks.flat_map(str::lines).filter(|line| line.starts_with("host")).collect()
}

/// A newcomer types what the README says, from the first network to the status page. Written here is
/// only what differs: hosts have addresses instead of names, pings end by themselves, and a
/// namespace has the number of its process.
#[test]
fn the_readme_from_the_first_network_to_the_status_page() {
    let lines = typed_in_readme();
    assert_eq!(lines.len(), 12, "a line came or went: {lines:#?}");
    let mut recipe =
        "! engines 2, plain 0\nhost1$ docker run -d --name lab --network none ubuntu sleep 600\n".to_owned();
    for line in lines {
        let lab = "pid:$(docker inspect -f '{{.State.Pid}}' lab)";
        let line = line.replace("weave launch host1", "weave launch $HOST1").replace("netns:lab", lab);
        recipe += &line.replace(" ping ", " ping -c 1 -W 1 ");
        recipe += match line {
            line if line.contains("launch $HOST1") => {
                "\nhost2$ weave status connections\n! until established\n"
            }
            line if line.contains(" ping ") => "\n! until 1 packets received\n",
            _ => "\n",
        };
    }
    recipe += "host1$ curl -sS http://127.0.0.1:6782/\n! until <title>weave</title>\n";
    follow("README.md", &recipe);
}
