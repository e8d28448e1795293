"""A plain asyncio server. One line of its output is one failure that asyncio tells of."""

import asyncio
import sys
import time


def tell(_loop, context):
    print(f"{time.time():.6f} {context['message']}: {context.get('exception')}")


async def answer(reader, writer):
    while True:
        try:
            await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            break
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n")
    writer.close()


async def main():
    asyncio.get_running_loop().set_exception_handler(tell)
    server = await asyncio.start_server(answer, "127.0.0.1", int(sys.argv[1]))
    async with server:
        await server.serve_forever()


asyncio.run(main())
