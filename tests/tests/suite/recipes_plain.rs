//! Every recipe of the feature page on network namespaces without an engine, on every topology; on
//! two of them with the long tests.

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
                fn long_on_a_ring_of_five() {
                    follow_plain($name, TEXT, Topology::Ring);
                }

                #[test]
                fn long_on_a_full_mesh_of_four() {
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
