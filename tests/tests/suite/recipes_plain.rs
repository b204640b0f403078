//! Recipes of the feature page on network namespaces without an engine, on every topology.

use weave_tests::engines::Topology;
use weave_tests::recipe::follow_plain;

/// A test for each file and topology.
macro_rules! recipes {
    ($($test:ident: $name:literal),* $(,)?) => {
        $(
            mod $test {
                use super::*;

                const TEXT: &str = include_str!(concat!("../../recipes/", $name, ".recipe"));

                #[test]
                fn on_a_pair() {
                    follow_plain($name, TEXT, Topology::Pair);
                }

                #[test]
                fn on_a_chain_with_a_relay() {
                    follow_plain($name, TEXT, Topology::Chain);
                }

                #[test]
                fn on_a_ring_of_five() {
                    follow_plain($name, TEXT, Topology::Ring);
                }

                #[test]
                fn on_a_full_mesh_of_four() {
                    follow_plain($name, TEXT, Topology::FullMesh);
                }
            }
        )*
    };
}

recipes! {
    virtual_switch: "virtual-switch",
    application_isolation: "application-isolation",
    dynamic_attachment: "dynamic-attachment",
    container_mobility: "container-mobility",
}
