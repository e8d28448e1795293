// A plain http server whose clients may stay as long as they like.
'use strict';

const server = require('node:http').createServer((request, response) => {
  response.end('ok\n');
});
server.keepAliveTimeout = 0;
server.headersTimeout = 0;
server.requestTimeout = 0;
server.listen(Number(process.argv[2]), '127.0.0.1', () => console.log('listening'));
