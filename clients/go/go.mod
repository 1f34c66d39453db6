module openclaw

go 1.23
