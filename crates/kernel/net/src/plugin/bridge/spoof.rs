//! `macspoofchk`: frames that a pod sends under another address than its own are dropped.
//!
//! Table `bridge nat`: the chain `PREROUTING` sends what comes from the pod's port through a chain of its own, which
//! returns frames from the pod's address and drops the others.

use crate::cni::Error;
use crate::netlink::{Connection, Mac, Protocol};
use crate::nft::{self, Base, Batch, Family, Op, Rule, Table, Verdict};

const TABLE: Table = Table { family: Family::Bridge, name: "nat" };
const PREROUTING: &str = "PREROUTING";

struct Names {
    comment: String,
    port: String,
    mac: String,
}

impl Names {
    fn of(container_id: &str, ifname: &str) -> Self {
        let port = format!("cni-br-iface-{container_id}-{ifname}");
        Self { comment: format!("macspoofchk-{container_id}-{ifname}"), mac: format!("{port}-mac"), port }
    }
}

/// Drops what comes by the port `port` from another address than `mac`.
pub fn setup(port: &str, mac: Mac, container_id: &str, ifname: &str) -> Result<(), Error> {
    let names = Names::of(container_id, ifname);
    let mut connection = Connection::open(Protocol::Netfilter)?;
    let mut batch = Batch::new(TABLE);
    let chains = [(PREROUTING, Some(Base::BridgePrerouting)), (&names.port, None), (&names.mac, None)];
    batch
        .lay_out(&mut connection, "CNI bridge plugin", &chains)?
        .flush_chain(&names.port)
        .flush_chain(&names.mac);
    let rule = || Rule::new().comment(&names.comment);
    batch
        .add_rule(PREROUTING, &rule().input(Op::Is, port).verdict(Verdict::Jump(names.port.clone())))
        .add_rule(&names.port, &rule().verdict(Verdict::Jump(names.mac.clone())))
        .add_rule(&names.mac, &rule().source_mac(mac).verdict(Verdict::Return))
        .add_rule(&names.mac, &rule().verdict(Verdict::Drop));
    batch.commit(&mut connection).map_err(|error| Error::from(error).context("failed to setup spoof-check"))
}

/// Removes what [`setup`] made, if it is there.
pub fn teardown(container_id: &str, ifname: &str) -> Result<(), Error> {
    let names = Names::of(container_id, ifname);
    let mut connection = Connection::open(Protocol::Netfilter)?;
    nft::delete_rules(&mut connection, TABLE, &[PREROUTING], &|comment| comment == names.comment)?;
    for chain in [&names.port, &names.mac] {
        if nft::chain_exists(&mut connection, TABLE, chain)? {
            let mut batch = Batch::new(TABLE);
            batch.flush_chain(chain).delete_chain(chain);
            batch.commit(&mut connection)?;
        }
    }
    Ok(())
}
