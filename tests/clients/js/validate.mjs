// Validates each body on standard input against the schema there; prints the validator's words, null for none.
import { Cabidela } from "@cloudflare/cabidela";
import { text } from "node:stream/consumers";

// Node has these since 22; Workers have them.
Set.prototype.difference ??= function (other) {
  return new Set([...this].filter((each) => !other.has(each)));
};
Set.prototype.union ??= function (other) {
  return new Set([...this, ...other]);
};

const { schema, bodies } = JSON.parse(await text(process.stdin));
const cabidela = new Cabidela(schema);
const words = bodies.map((body) => {
  try {
    cabidela.validate(body);
    return null;
  } catch (error) {
    return `${error}`;
  }
});
console.log(JSON.stringify(words));
