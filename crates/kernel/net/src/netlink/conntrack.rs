//! Connection tracking: forgetting flows that would shadow a new forwarding.

use super::message::{Attributes, Message};
use super::{Connection, Result};

/// `NFNL_SUBSYS_CTNETLINK`, and its messages get and delete.
const CT_GET: u16 = 0x101;
const CT_DELETE: u16 = 0x102;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;

/// The attributes that name one flow.
type Flow = Vec<(u16, Vec<u8>)>;

/// Forgets the flows of `protocol` that were sent to one of `ports` of this host, in one address family.
///
/// UDP has no end of connection: a client that keeps sending to a port keeps its old translation, or the lack of one.
pub fn forget(connection: &mut Connection, ipv4: bool, protocol: u8, ports: &[u16]) -> Result<usize> {
    let family = if ipv4 { 2 } else { 10 };
    let list = Message::new("list connections", CT_GET, 0).header(&[family, 0, 0, 0]);
    let flows: Vec<Flow> = connection.dump(&list, |answer| {
        let attributes = Attributes(answer.payload.get(4..)?);
        let tuple = attributes.get(CTA_TUPLE_ORIG)?;
        let sent = Attributes(tuple).nested(CTA_TUPLE_PROTO);
        let port = u16::from_be_bytes(sent.get(CTA_PROTO_DST_PORT)?.try_into().ok()?);
        if sent.u8(CTA_PROTO_NUM)? != protocol || !ports.contains(&port) {
            return None;
        }
        let named = [CTA_TUPLE_ORIG, CTA_ID, CTA_ZONE]
            .map(|kind| attributes.get(kind).map(|value| (kind, value.to_vec())));
        Some(named.into_iter().flatten().collect())
    })?;
    let mut forgotten = 0;
    for flow in flows {
        let mut message = Message::new("forget connection", CT_DELETE, 0).header(&[family, 0, 0, 0]);
        for (kind, value) in &flow {
            let nested = if *kind == CTA_TUPLE_ORIG { 0x8000 } else { 0 };
            message.put(kind | nested, value);
        }
        match connection.execute(message) {
            Ok(()) => forgotten += 1,
            // It ended by itself.
            Err(error) if error.is(rustix::io::Errno::NOENT.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(forgotten)
}
