// Fetches a URL with Node's fetch; says the body, or what went wrong, and how long it took.
const start = performance.now();
try {
  const answer = await fetch(process.argv[2]);
  process.stdout.write(await answer.text());
} catch (error) {
  console.error(error.cause?.message ?? error.message);
  process.exitCode = 1;
}
console.error(`elapsed_s=${(performance.now() - start) / 1000}`);
