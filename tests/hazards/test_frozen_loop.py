"""A handler that sends on after its peer left must leave the event loop to the others."""

from tests.hazards.peers import upgrade
from tests.hazards.servers import Server, bystander, new_key


async def test_a_handler_that_sends_on_does_not_freeze_the_others(server: Server) -> None:
    key = new_key()
    async with bystander(server) as beside:
        async with server.peer() as leaver:
            await leaver.send(upgrade(f"/ws/drip/{key}"))
            with server.patience():
                await leaver.read_until(b"\r\n\r\n")
        assert await beside.is_served()
        await server.open_gate(key)
        assert await beside.is_served()
