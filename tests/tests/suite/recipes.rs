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
