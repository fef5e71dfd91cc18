//! `POST /v1/tools/{name}` and `GET /v1/tools`.

use super::super::{
    Shared,
    body::ReplyBody,
    serve::{Denial, caller},
};
use http::{Request, Response};
use hyper::body::Incoming;
use outlast_model::RequestId;
use outlast_wire::error::Refused;
use std::sync::Arc;

/// Answers whatever is asked under `/v1/tools`.
pub(in super::super) async fn answer(
    shared: &Arc<Shared>,
    _request_id: &RequestId,
    request: Request<Incoming>,
) -> Result<Response<ReplyBody>, Denial> {
    let live = shared.live();
    caller(&live, request.headers())?;
    Err(Denial::new(Refused::NoSuchPath, "No tool has that name. GET /v1/tools lists all."))
}
