'use strict';

// What every scenario needs: arguments, JSON lines on standard output, the options that all clients share.

function args() {
  const values = {};
  const argv = process.argv.slice(2);
  for (let i = 0; i + 1 < argv.length; i += 2) {
    values[argv[i].slice(2)] = argv[i + 1];
  }
  return values;
}

function event(name, fields) {
  process.stdout.write(JSON.stringify({ event: name, ...fields }) + '\n');
}

function options(a) {
  return {
    nameSrv: [ a.namesrv ],
    httpclient: {}, // only used to look name servers up over HTTP
    clientIP: '127.0.0.1',
    namespace: a.namespace || '',
    instanceName: a.instance || String(process.pid),
    logger: { info() {}, debug() {}, warn: console.error, error: console.error },
  };
}

/** Resolves once the runner has closed our standard input: its way to say "stop". */
function endOfInput() {
  return new Promise(resolve => process.stdin.on('end', resolve).resume());
}

/**
 * Runs a scenario; a client that fails to start must fail the case, not hang it. Standard output is waited for: an exit
 * loses what a full pipe has not taken yet.
 */
function main(scenario) {
  const exit = status => process.stdout.write('', () => process.exit(status));
  scenario(args()).then(() => exit(0), err => {
    console.error(err);
    exit(1);
  });
}

module.exports = { event, options, endOfInput, main };
