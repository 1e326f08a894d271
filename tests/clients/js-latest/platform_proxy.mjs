// Makes the calls on standard input with the bindings that frameworks get in their development servers.
import { text } from "node:stream/consumers";
import { getPlatformProxy } from "wrangler";
import { report } from "./project/calls.js";

const { config, calls } = JSON.parse(await text(process.stdin));
const { env, dispose } = await getPlatformProxy({ configPath: config });
console.log(JSON.stringify(await report(env.AI, calls)));
await dispose();
