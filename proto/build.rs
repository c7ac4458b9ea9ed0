//! Generates the wire types and gRPC stubs from `weir.proto`.

fn main() -> std::io::Result<()> {
    tonic_prost_build::configure().bytes(".").compile_protos(&["weir.proto"], &["."])
}
