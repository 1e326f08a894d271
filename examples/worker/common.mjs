import { build } from "esbuild";

// One file out of a Worker and the packages it imports.
export async function bundle(entry) {
  const { outputFiles } = await build({ entryPoints: [entry], bundle: true, format: "esm", write: false });
  return outputFiles[0].text;
}

// Otherwise a Worker would only say "Network connection lost".
export async function answers(gateway) {
  try {
    await fetch(new URL("/livez", gateway));
  } catch {
    console.error(`Nobody answers at ${gateway.origin}. Is make serve running?`);
    process.exit(1);
  }
}
