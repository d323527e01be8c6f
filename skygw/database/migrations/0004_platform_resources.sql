-- depends: 0002_gateway_role

-- What telemetry can be about besides telescopes and devices, by the platform's records.
GRANT SELECT ON instrument, instrument_device, operational_constraint TO skynet_gateway;
