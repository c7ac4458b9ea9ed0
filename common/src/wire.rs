//! Conversions between identifiers and their wire forms.

use weir_proto as proto;

use crate::error::Kind;
use crate::ids::{Term, TermId, VNODES, VnodeRange};
use crate::rpc;

impl From<TermId> for proto::TermId {
    fn from(id: TermId) -> proto::TermId {
        proto::TermId { term: id.term.0, nonce: id.nonce }
    }
}

impl From<proto::TermId> for TermId {
    fn from(id: proto::TermId) -> TermId {
        TermId { term: Term(id.term), nonce: id.nonce }
    }
}

impl From<VnodeRange> for proto::VnodeRange {
    fn from(range: VnodeRange) -> proto::VnodeRange {
        proto::VnodeRange { start: u32::from(range.start), end: u32::from(range.end) }
    }
}

impl TryFrom<proto::VnodeRange> for VnodeRange {
    type Error = rpc::Error;

    fn try_from(range: proto::VnodeRange) -> Result<VnodeRange, rpc::Error> {
        if range.start < range.end && range.end <= u32::from(VNODES) {
            let narrow = |bound: u32| u16::try_from(bound).expect("at most 256");
            Ok(VnodeRange { start: narrow(range.start), end: narrow(range.end) })
        } else {
            Err(rpc::Error::new(Kind::Internal, format!("{}..{} is no range of vnodes", range.start, range.end)))
        }
    }
}
