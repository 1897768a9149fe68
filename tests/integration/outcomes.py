"""What a sound ingestion makes of the shared documents."""

# What becomes of each document of the test set; whatever is not named here is indexed.
REFUSED = {
    "adversarial/54764.xlsx": "CORRUPT",  # declares entities
    "adversarial/ExternalEntityInText.docx": "CORRUPT",
    "adversarial/poc-xmlbomb.xlsx": "CORRUPT",
    "adversarial/Pages-tree-refs.pdf": "CORRUPT",
    "adversarial/REDHAT-1531897-0.pdf": "CORRUPT",
    "adversarial/poppler-395-0-fuzzed.pdf": "CORRUPT",
    "adversarial/random-bytes.docx": "CORRUPT",
    "adversarial/testWORD_truncated.docx": "CORRUPT",
    "adversarial/external_file.xml": "UNSUPPORTED",
    "adversarial/quadratic.xml": "UNSUPPORTED",
    "adversarial/xmlbomb.xml": "UNSUPPORTED",
    "adversarial/xxe-external-file.svg": "UNSUPPORTED",
    "adversarial/random.bin": "UNSUPPORTED",
    "adversarial/simple.zip": "UNSUPPORTED",
    "adversarial/zero-bytes.pdf": "EMPTY",
    "docx/testWORD_protected_passtika.docx": "ENCRYPTED",
    "eml/empty.eml": "EMPTY",
    "eml/fake-encrypted.eml": "ENCRYPTED",
    "pdf/aes-256-r6.pdf": "ENCRYPTED",
    "pdf/libreoffice-writer-password.pdf": "ENCRYPTED",
    "pdf/password-example.pdf": "ENCRYPTED",
    "pdf/password.pdf": "ENCRYPTED",
    "pdf/rc4-128.pdf": "ENCRYPTED",
    "pdf/imagemagick-images.pdf": "NO_TEXT",
    "pdf/loremipsum-flat.pdf": "NO_TEXT",
    "txt/empty.txt": "EMPTY",
    "txt/fake-text-all-whitespace.txt": "EMPTY",
    "xlsx/empty.xlsx": "EMPTY",
    "xlsx/password_protected.xlsx": "ENCRYPTED",
    "xlsx/tests-example.xls": "UNSUPPORTED",
}

# A line of the file that the documents with external entities ask for.
LEAK = "root:x:0"
