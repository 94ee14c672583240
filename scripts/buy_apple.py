"""
Two apples with tax
===================

Two apples at 100 each with 10% tax, forward and backward (section 5.4.1).
"""

from pathlib import Path

from xpnet.examples import build
from xpnet.layers import MulLayer

apple, apple_num, tax = 100, 2, 1.1

mul_apple_layer = MulLayer()
mul_tax_layer = MulLayer()

apple_price = mul_apple_layer.forward(apple, apple_num)
price = mul_tax_layer.forward(apple_price, tax)

dprice = 1
dapple_price, dtax = mul_tax_layer.backward(dprice)
dapple, dapple_num = mul_apple_layer.backward(dapple_price)

print(f"price       {price:g}")
print(f"dapple      {dapple:g}")
print(f"dapple_num  {dapple_num:g}")
print(f"dtax        {dtax:g}")

Path("buy_apple.html").write_text(build("apple").to_html(), encoding="utf-8")  # as a graph
