//! The types `regclass`, `regtype` and the like: oids that are read and printed as names.
//!
//! A cast to one of them calls the function of the type's name, which returns a marked oid. A cast
//! of that oid to text, and sending it, calls PostgreSQL's output function of the type, such as
//! `regclassout`. The functions belong to the system catalogs that a planner is given.

use postgres_types::Type;

/// The types, and the functions that print them.
const PRINTED: [(Type, &str); 9] = [
    (Type::REGCLASS, "regclassout"),
    (Type::REGTYPE, "regtypeout"),
    (Type::REGPROC, "regprocout"),
    (Type::REGPROCEDURE, "regprocedureout"),
    (Type::REGNAMESPACE, "regnamespaceout"),
    (Type::REGROLE, "regroleout"),
    (Type::REGOPER, "regoperout"),
    (Type::REGOPERATOR, "regoperatorout"),
    (Type::REGCOLLATION, "regcollationout"),
];

/// The name of the function that prints a type's values, if they are printed as names.
pub(crate) fn printed_by(ty: &Type) -> Option<&'static str> {
    PRINTED.iter().find(|(known, _)| known == ty).map(|(_, function)| *function)
}

/// True if casts to a type of this name are calls of a function.
pub(crate) fn is_called(name: &str) -> bool {
    name == "oid" || PRINTED.iter().any(|(ty, _)| ty.name() == name)
}
