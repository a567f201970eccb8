//! Records about tablespaces: only their creation is read, because replay makes it at the place the source named.
//!
//! Source: `xl_tblspc_create_rec` (the object's number, then a path that ends with a NUL) and the info values,
//! src/include/commands/tablespace.h, the same in REL_14_STABLE to REL_18_STABLE.

use super::fields::Fields;
use super::record::MainData;
use crate::event::Happened;

/// The resource manager of these records.
/// Source: `RM_TBLSPC_ID`, src/include/access/rmgrlist.h.
pub(super) const RESOURCE_MANAGER: u8 = 5;

const CREATE: u8 = 0x00;

/// Whether a record's data must be kept for [`read`].
pub(super) const fn is_read(info: u8) -> bool {
    info & 0xF0 == CREATE
}

/// What the record of a creation says.
pub(super) fn read(main: MainData<'_>) -> Result<Happened, &'static str> {
    let mut fields = Fields::new(main.data);
    let cut = "the creation of a tablespace is cut short";
    let oid = fields.u32().ok_or(cut)?;
    let location = fields.until_nul().ok_or(cut)?;
    if fields.remaining() > 0 {
        return Err("bytes are left after its path");
    }
    let location =
        String::from_utf8(location.to_vec()).map_err(|_| "the path of a tablespace is not UTF-8")?;
    Ok(Happened::TablespaceCreated { oid, location })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn main(data: &[u8]) -> MainData<'_> {
        MainData { data, origin: None }
    }

    #[test]
    fn a_creation_tells_its_number_and_place() {
        let told = read(main(b"\x10\x40\0\0/srv/fast\0"));
        assert_eq!(told, Ok(Happened::TablespaceCreated { oid: 16_400, location: "/srv/fast".to_owned() }));
    }

    #[test]
    fn a_damaged_creation_is_refused() {
        for data in
            [&b""[..], b"\x10\x40\0", b"\x10\x40\0\0/srv", b"\x10\x40\0\0/a\0b", b"\x10\x40\0\0/\xff\0"]
        {
            assert!(read(main(data)).is_err(), "{data:?}");
        }
    }
}
