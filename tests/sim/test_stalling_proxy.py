"""What a stalling proxy holds arrives later, whole and in order; the other direction flows on."""

import trio

from skygw.sim.stalling_proxy import StallingProxy

PATIENCE_S = 10.0


async def test_held_bytes_arrive_after_the_release_and_not_before() -> None:
    reached = trio.Event()

    async def greet(stream: trio.SocketStream) -> None:
        await stream.send_all(b"first")
        assert await stream.receive_some() == b"hello"
        reached.set()
        await stream.send_all(b"second")
        await stream.receive_some()

    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, greet, listeners)
            proxy = StallingProxy("127.0.0.1", listeners[0].socket.getsockname()[1])
            port = await nursery.start(proxy.run)
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                assert await stream.receive_some() == b"first"
                proxy.hold()
                await stream.send_all(b"hello")
                await reached.wait()
                with trio.move_on_after(0.1) as patience:
                    await stream.receive_some()
                assert patience.cancelled_caught
                proxy.release()
                assert await stream.receive_some() == b"second"
            nursery.cancel_scope.cancel()


async def test_a_target_that_is_not_there_ends_the_connection() -> None:
    unused = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port = unused.socket.getsockname()[1]
    await unused.aclose()
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            proxied = await nursery.start(StallingProxy("127.0.0.1", port).run)
            async with await trio.open_tcp_stream("127.0.0.1", proxied) as stream:
                assert await stream.receive_some() == b""
            nursery.cancel_scope.cancel()
