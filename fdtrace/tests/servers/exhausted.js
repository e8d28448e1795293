// Fails to open files in each way that Node has. Says how often, by system call.
'use strict';

const fs = require('node:fs');

// Now: with its first stream libuv opens a spare descriptor, and says nothing when it gets none.
const stdin = process.stdin;

const counts = { openat: 0, async: 0 };

function atItsLimit(times, make) {
  for (let time = 0; time < times; time++) {
    try {
      make();
    } catch (error) {
      if (error.code !== 'EMFILE') throw error;
      counts.openat++;
      continue;
    }
    throw new Error('something is left');
  }
}

const held = [];
try {
  for (;;) held.push(fs.openSync('/dev/null'));
} catch {
  counts.openat++;
}
atItsLimit(31, () => fs.openSync('/dev/null'));
atItsLimit(32, () => fs.readFileSync('/etc/hostname'));
atItsLimit(33, () => fs.readdirSync('/'));

let waiting = 34;
for (let time = waiting; time > 0; time--) {
  fs.open('/dev/null', 'r', (error) => {
    if (error?.code !== 'EMFILE') throw error ?? new Error('something is left');
    counts.async++;
    if (--waiting === 0) {
      fs.writeSync(1, JSON.stringify(counts) + '\n');
      stdin.resume();
    }
  });
}
