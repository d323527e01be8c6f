"""The routes of assets in the table of routes."""

from skygw.auth.principals import Scope
from skygw.observing.assets import AssetRole, TransferState
from skygw.routers.asset_bodies import AssetBody, DeclaredView, HubAssetPage, HubAssetView, OwnAssetPage, OwnAssetView
from skygw.routers.route import PAGE, Access, Answer, Query, Route

CONTENT_ROUTE = "/internal/assets/<asset_id>/content"

_UID: dict[str, object] = {"type": "string", "format": "uuid"}
_OF_TASK = Query("taskUid", "Only those of this task", _UID)
_IN_STATE = Query("transferState", "Only those in this state", {"type": "string", "enum": [*TransferState]})

ASSET_ROUTES = (
    Route(
        "POST",
        "/v1/nodes/me/assets",
        "declareAsset",
        "Say what a file is before its bytes come; the same again is the same asset",
        (
            Answer(201, "It is new, or its bytes are wanted: they go to `upload.url`", DeclaredView),
            Answer(200, "There is nothing to send", DeclaredView),
        ),
        access=Access.NODE,
        body=AssetBody,
        refusals=(404, 409, 413, 422, 507),
    ),
    Route(
        "GET",
        "/v1/nodes/me/assets",
        "listAssets",
        "What it has declared, the newest first",
        (Answer(200, "A page of them", OwnAssetPage),),
        access=Access.NODE,
        query=(*PAGE, _OF_TASK, _IN_STATE),
        refusals=(422,),
    ),
    Route(
        "GET",
        "/v1/nodes/me/assets/<asset_id>",
        "getAsset",
        "One asset with its transfer, by uid or key",
        (Answer(200, "The asset", OwnAssetView),),
        access=Access.NODE,
        refusals=(404,),
    ),
)

INTERNAL_ASSET_ROUTES = (
    Route(
        "GET",
        "/internal/assets",
        "listAssets",
        "What installations have declared, the newest first",
        (Answer(200, "A page of them", HubAssetPage),),
        access=Access.SERVICE,
        scope=Scope.ASSETS_READ,
        query=(
            *PAGE,
            _OF_TASK,
            Query("observationUid", "Only those of this observation", _UID),
            Query("resultUid", "Only those that were reported for this result", _UID),
            Query("role", "Only those in this role", {"type": "string", "enum": [*AssetRole]}),
            _IN_STATE,
            Query("createdAfter", "Only those declared after this", {"type": "string", "format": "date-time"}),
        ),
        refusals=(422,),
    ),
    Route(
        "GET",
        "/internal/assets/<asset_id>",
        "getAsset",
        "One asset, by uid or key",
        (Answer(200, "The asset", HubAssetView),),
        access=Access.SERVICE,
        scope=Scope.ASSETS_READ,
        refusals=(404,),
    ),
    Route(
        "POST",
        "/internal/assets/<asset_id>/transfer",
        "transferAsset",
        "Ask its node to send the bytes of an asset; again is no mistake",
        (
            Answer(200, "They are here already", HubAssetView),
            Answer(202, "The node was asked and will send them", HubAssetView),
        ),
        access=Access.SERVICE,
        scope=Scope.NODES_CALL,
        refusals=(404, 409, 413, 422, 429, 502, 504, 507),
    ),
    Route(
        "GET",
        CONTENT_ROUTE,
        "readAsset",
        "The bytes of an asset, or with `Range` some of them; of one that is not here, read from its node",
        (
            Answer(200, "All of them, with their digest", "application/octet-stream"),
            Answer(206, "Those asked for", "application/octet-stream"),
            Answer(304, "They are what the caller has, by `If-None-Match`"),
            Answer(416, "Nothing lies there; `Content-Range` says how many bytes there are", "application/json"),
        ),
        access=Access.SERVICE,
        scope=Scope.ASSETS_READ,
        refusals=(404, 409, 412, 429, 500, 502, 504),
    ),
)
