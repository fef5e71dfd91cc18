// What every test here has: where the gateway is, how its config names routes, the vendors' logs.
// The runner (`cargo xtask clients`) starts the processes and sets the environment.

export const URL = process.env.OUTLAST_URL;
export const KEY = process.env.OUTLAST_KEY;
export const VENDORS = ["openai", "anthropic"];
const LOGS = [process.env.OPENAI_VENDOR_URL, process.env.ANTHROPIC_VENDOR_URL];

/** A route of one target at `vendor` that always shows `fault`; nobody but `client` uses it. */
export const route = (client, vendor, fault) => `${client}-${vendor}-${fault}`;

/** The same target first, then a healthy one at the other vendor. */
export const failover = (client, vendor, fault) => `${route(client, vendor, fault)}-then-good`;

export const other = (vendor) => (vendor === "openai" ? "anthropic" : "openai");

/** The calls that any vendor saw for a target of this route. */
export async function upstreamCalls(name) {
  const logs = await Promise.all(LOGS.map(async (url) => (await (await fetch(`${url}/fake/log`)).json()).calls));
  return logs.flat().filter((call) => call.model.split("~")[0] === name);
}

/** The error that `work` throws; fails when it throws none. */
export async function thrown(work) {
  try {
    await work();
  } catch (error) {
    return error;
  }
  throw new Error("nothing was thrown");
}
