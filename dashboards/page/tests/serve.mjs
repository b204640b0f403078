// The page on this machine, with a made-up network: `npm run serve [HOSTS [PORT]]`.

import { recorded, troubled } from "./recorded.mjs";
import { Server } from "./server.mjs";

const [hosts = "100", port = "8080"] = process.argv.slice(2);
const world = recorded({ hosts: Number(hosts) });
const server = await new Server((second) => troubled(world.at(second))).listen(Number(port));
console.log(server.url);
