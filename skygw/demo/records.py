"""What the hub would know of simulated sites, written into its database so that a gateway lets them in."""

from collections.abc import Iterable

import psycopg

from skygw.database.addresses import name_database
from skygw.database.provision import (
    NewCamera,
    NewConstraint,
    NewDevice,
    NewInstrument,
    NewObservatory,
    NewPosition,
    NewSite,
    NewTelescope,
    provision,
)
from skygw.errors import StartupError
from skygw.sim.blueprint import FILTERS, SiteBlueprint, TelescopeBlueprint, filter_uid


async def provision_sites(owner_url: str, blueprints: Iterable[SiteBlueprint]) -> None:
    """Make the records of these sites. Raises `StartupError` if the database does not take them."""
    try:
        await provision(owner_url, [records_of(blueprint) for blueprint in blueprints])
    except psycopg.Error as error:
        said = str(error).strip().partition("\n")[0] or type(error).__name__
        raise StartupError(f"the installations cannot be written into {name_database(owner_url)}: {said}") from error


def records_of(site: SiteBlueprint) -> NewObservatory:
    """The observatory with everything that stands there, and its installations."""
    return NewObservatory(
        uid=site.observatory_uid,
        name=site.name,
        install_id=site.install_id,
        site=NewSite(site.site_uid, site.name, site.place.latitude_deg),
        cameras=(NewCamera(site.ip_camera_uid, f"{site.name} hall"),),
        devices=(
            *(() if site.telescope_runs_roof else (_roof(site),)),
            NewDevice(site.weather_sensor_uid, "weather_sensor", f"{site.name} weather"),
        ),
        constraints=(NewConstraint(site.weather_constraint_uid, "weather_sensor", f"{site.name} weather"),),
        telescopes=tuple(_telescope(telescope, site) for telescope in site.telescopes),
    )


def _roof(site: SiteBlueprint) -> NewDevice:
    return NewDevice(site.enclosure_uid, "enclosure", f"{site.name} roof")


def _telescope(telescope: TelescopeBlueprint, site: SiteBlueprint) -> NewTelescope:
    return NewTelescope(
        uid=telescope.uid,
        name=telescope.name,
        install_id=telescope.install_id,
        devices=(
            *(
                NewDevice(uid, device_type, f"{telescope.name} {device_type.replace('_', ' ')}")
                for uid, device_type in (
                    (telescope.ota_uid, "ota"),
                    (telescope.mount_uid, "mount"),
                    (telescope.camera_uid, "camera"),
                    (telescope.focuser_uid, "focuser"),
                )
            ),
            NewDevice(
                telescope.filter_wheel_uid,
                "filter_wheel",
                f"{telescope.name} filter wheel",
                positions=tuple(
                    NewPosition(uid, position, filter_uid(each.filter_id), each.name)
                    for position, (uid, each) in enumerate(zip(telescope.position_uids, FILTERS, strict=True))
                ),
            ),
            *((_roof(site),) if site.telescope_runs_roof else ()),
        ),
        instruments=(
            NewInstrument(
                telescope.instrument_uid,
                "optical_imager",
                f"{telescope.name} imager",
                parts=(telescope.ota_uid, telescope.camera_uid, telescope.focuser_uid, telescope.filter_wheel_uid),
            ),
        ),
        constraints=(NewConstraint(telescope.sun_altitude_uid, "sun_altitude", f"{telescope.name} sun altitude"),),
    )
