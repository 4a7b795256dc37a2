"""The BFV scheme (Fan and Vercauteren 2012) by TenSEAL, which wraps Microsoft SEAL."""
