// One file out of a Worker and the packages it imports.
import { build } from "esbuild";

export async function bundle(entry) {
  const { outputFiles } = await build({ entryPoints: [entry], bundle: true, format: "esm", write: false });
  return outputFiles[0].text;
}
