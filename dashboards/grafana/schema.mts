// Checked by tsc: each dashboard is what Grafana's published types say.
import type { Dashboard } from "@grafana/grafana-foundation-sdk/dashboard";
import type { Dataquery } from "@grafana/grafana-foundation-sdk/prometheus";
import capacity from "./capacity.json" with { type: "json" };
import dns from "./dns.json" with { type: "json" };
import host from "./host.json" with { type: "json" };
import link from "./link.json" with { type: "json" };
import overview from "./overview.json" with { type: "json" };

/** A type with the names of enums as plain texts, as JSON has them. */
type Plain<T> = T extends string ? string
  : T extends number ? number
  : T extends (infer U)[] ? Plain<U>[]
  : T extends object ? { [K in keyof T as K extends `_implements${string}` ? never : K]: Plain<T[K]> }
  : T;

const dashboards = [overview, host, link, dns, capacity] satisfies Plain<Dashboard>[];
dashboards.flatMap((dashboard) => dashboard.panels.flatMap((panel) => panel.targets)) satisfies Plain<Dataquery>[];
