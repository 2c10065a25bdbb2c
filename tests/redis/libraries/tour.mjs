// A tour of ioredis as applications use it: node tour.mjs PORT; prints `done`. NODE_PATH-like: IOREDIS names its folder.
import assert from "node:assert/strict";
import { createRequire } from "node:module";

const Redis = createRequire(process.env.IOREDIS + "/")("ioredis");
const port = Number(process.argv[2]);
const r = new Redis(port, "127.0.0.1", { connectionName: "tour" });
const other = new Redis(port, "127.0.0.1");

await r.flushall();
assert.equal(await r.client("GETNAME"), "tour");
assert.equal(await r.set("text", "ü", "EX", 100), "OK");
assert.equal(await r.get("text"), "ü");
assert.deepEqual(await r.getBuffer("text"), Buffer.from("ü"));
assert.equal(await r.mset({ m1: 1, m2: 2, m3: 3 }), "OK");
assert.deepEqual(await r.mget("m1", "m2", "m3", "none"), ["1", "2", "3", null]);
assert.equal(await r.hset("hash", { a: 1, b: 2 }), 2);
assert.deepEqual(await r.hgetall("hash"), { a: "1", b: "2" });
assert.equal(await r.zadd("sorted", 1, "one", 2.5, "two"), 2);
assert.deepEqual(await r.zrange("sorted", 0, -1, "WITHSCORES"), ["one", "1", "two", "2.5"]);
assert.equal(await r.del("m1", "m2", "m3", "none"), 3);
await assert.rejects(r.incr("text"), /not an integer/);
await assert.rejects(r.sinter(...Array.from({ length: 50 }, (_, n) => "s" + n)), /CROSSSLOT/);

// Many commands at once on one connection keep their order, and so do pipelines.
const sent = Array.from({ length: 500 }, (_, n) => r.incr("n" + (n % 7)));
assert.deepEqual(await Promise.all(sent), sent.map((_, n) => Math.floor(n / 7) + 1));
const pipe = r.pipeline();
for (let n = 0; n < 200; n++) pipe.set("p" + n, n).get("p" + n);
const piped = await pipe.exec();
assert.equal(piped.length, 400);
piped.forEach(([error, reply], n) => assert.deepEqual([error, reply], [null, n % 2 ? String(n >> 1) : "OK"]));

assert.deepEqual(await r.multi().incr("{x}n").incr("{x}n").get("{x}n").exec(), [[null, 1], [null, 2], [null, "2"]]);
await r.watch("{x}n");
await other.set("{x}n", 100);
assert.equal(await r.multi().incr("{x}n").exec(), null);
assert.equal(await r.get("{x}n"), "100");

r.defineCommand("add", { numberOfKeys: 1, lua: "return redis.call('INCRBY', KEYS[1], ARGV[1])" });
assert.equal(await r.add("{s}1", 5), 5);
assert.equal(await r.add("{s}1", 5), 10);
assert.deepEqual(await r.eval("return {KEYS[1], {ARGV[1], 7}}", 1, "k", "a"), ["k", ["a", 7]]);

const seen = new Set();
for await (const keys of r.scanStream({ match: "p*", count: 20 })) keys.forEach((key) => seen.add(key));
assert.equal(seen.size, 200);

const popped = r.blpop("queue", 20);
await other.rpush("queue", "job");
assert.deepEqual(await popped, ["queue", "job"]);
assert.equal(await r.blpop("queue", 0.05), null);

const listener = new Redis(port, "127.0.0.1");
assert.equal(await listener.subscribe("news", "more"), 2);
assert.equal(await listener.psubscribe("n*"), 3);
const heard = Promise.all([
  new Promise((done) => listener.once("message", (...words) => done(words))),
  new Promise((done) => listener.once("pmessage", (...words) => done(words))),
]);
assert.equal(await r.publish("news", "hi"), 2);
assert.deepEqual(await heard, [["news", "hi"], ["n*", "news", "hi"]]);
await listener.unsubscribe("news", "more"); // without names, ioredis waits until it hears nothing at all any more
await listener.punsubscribe("n*");
assert.equal(await listener.get("text"), "ü"); // an ordinary client again

await Promise.all([r.quit(), other.quit(), listener.quit()]);
console.log("done");
